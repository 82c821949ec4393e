"""What every entry point reads from its command line, and how it ends.

Light on purpose: `--help` imports nothing heavier than yaml.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pixelis.cli.console import configure_logging
from pixelis.config import Setting, describe, load_config, unknown_key
from pixelis.config.help_text import build_help
from pixelis.errors import ConfigError, UserError
from pixelis.files import describe_full_disk, is_disk_full

ConfigType = TypeVar("ConfigType")
INTERRUPTED = 130  # the exit code of what Ctrl-C or a signal stopped


class ExtraFile(NamedTuple):
    """A second configuration file of an entry point."""

    config_class: type[Any]
    default: str


@dataclass(frozen=True)
class Arguments(Generic[ConfigType]):
    """A command line, read and checked."""

    config: ConfigType
    extra: Mapping[str, Any]
    config_file: Path
    overrides: tuple[tuple[str, str], ...]


def parse_arguments(
    argv: Sequence[str],
    *,
    entry_point: str,
    description: str,
    config_class: type[ConfigType],
    default_config: str,
    extra_files: Mapping[str, ExtraFile] | None = None,
) -> Arguments[ConfigType]:
    """Load the files that a command line names and put its `--section.key value` over them."""
    files = {"config": ExtraFile(config_class, default_config), **(extra_files or {})}
    owners = {
        field.name: option
        for option, file in files.items()
        for field in dataclasses.fields(file.config_class)
    }
    settings = {s.key: s for file in files.values() for s in describe(file.config_class)}
    if "-h" in argv or "--help" in argv:
        print(build_help(entry_point, description, files))
        raise SystemExit(0)

    paths = {option: file.default for option, file in files.items()}
    overrides: dict[str, list[tuple[str, str]]] = {option: [] for option in files}
    for key, value in _pairs(argv, settings):
        if key in files:
            paths[key] = value
            continue
        section = key.partition(".")[0]
        if section not in owners:
            raise ConfigError(unknown_key(key, "the command line", owners, settings))
        overrides[owners[section]].append((key, value))

    loaded = {
        option: load_config(file.config_class, Path(paths[option]), overrides[option])
        for option, file in files.items()
    }
    return Arguments(
        config=loaded.pop("config"),
        extra=loaded,
        config_file=Path(paths["config"]),
        overrides=tuple(pair for pairs in overrides.values() for pair in pairs),
    )


def run_cli(main: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run an entry point; a user's error becomes one line and exit code 2."""
    configure_logging()
    try:
        return main(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            if not is_disk_full(error):
                raise
            where = f"the working folder, or {tempfile.gettempdir()}"
            print(f"error: {describe_full_disk(Path())} ({where})", file=sys.stderr)
            return 2
        # A path that is too long, on a read-only or a full disk, below a file, ...
        print(f"error: {str(error.filename):.200}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _pairs(argv: Sequence[str], settings: Mapping[str, Setting]) -> Iterator[tuple[str, str]]:
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            usage = "options look like --config FILE or --section.key VALUE"
            raise ConfigError(f"Unexpected argument {word!r}: {usage}")
        name, equals, value = word[2:].partition("=")
        key = name.replace("-", "_")  # the guide writes --exp-name
        if not equals:
            if words and not words[0].startswith("--"):
                value = words.pop(0)
            elif key in settings and settings[key].kind is bool:
                value = "true"
            else:
                raise ConfigError(f"{key} needs a value: --{key} VALUE or --{key}=VALUE")
        yield key, value
