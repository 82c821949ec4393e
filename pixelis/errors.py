"""The errors that a user can cause: their text is the whole message, the exit code is 2."""


class UserError(ValueError):
    """Base of everything a user can mend: the CLI prints its text alone, without a traceback."""


class ConfigError(UserError):
    """A configuration value breaks a rule; the text names the key, the rule and the value."""


class DataError(UserError):
    """A data folder, file or record cannot be used; the text names what, where and the rule."""


class CheckpointError(UserError):
    """A checkpoint or an adapter cannot be used; the text names it and says why."""


def in_one_line(error: Exception) -> str:
    """What a library's error says first, for a message of one line."""
    said = " ".join(line.strip() for line in str(error).strip().split("\n")[:2])[:400]
    # Some repeats what a foreign file holds; a terminal would obey its control characters.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)
