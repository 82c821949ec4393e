"""Errors that a user can cause and fix: the CLI prints only their text and exits with 2."""


class UserError(ValueError):
    """Base class of errors that a user can fix; the CLI prints the text without a traceback."""


class ConfigError(UserError):
    """A broken rule of a configuration value; the text names the key, the rule and the value."""


class DataError(UserError):
    """An unusable data folder, file or record; the text names it, its location and the rule."""


class CheckpointError(UserError):
    """An unusable checkpoint or adapter; the text names it and the reason."""


def in_one_line(error: Exception) -> str:
    """Return the first two lines of a library's error as one printable line."""
    text = " ".join(line.strip() for line in str(error).strip().split("\n")[:2])[:400]
    # The text may quote a foreign file, and a terminal would obey its control characters.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
