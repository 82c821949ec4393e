"""The command line and the exit codes of every entry point.

`--help` must stay fast, so this module imports nothing heavier than yaml and pydantic.
"""

import sys
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pixelis.cli.console import configure_logging
from pixelis.config import Section, find_config, load_config, unknown_key, walk_fields
from pixelis.errors import ConfigError, UserError
from pixelis.files import describe_full_disk, is_disk_full

ConfigType = TypeVar("ConfigType", bound=Section)
INTERRUPTED = 130  # exit code after Ctrl-C or a signal
# The last line of each `--help`.
EXAMPLES = {
    "data-prep": "--num_samples 5000 --include_traps",
    "sft": "--training.max_steps 300 --curriculum.rollback_threshold -0.1",
    "evaluate": "--adapter outputs/sft/final --split validation",
    "export": "--adapter outputs/sft/final --output_dir outputs/merged",
    "ablate": "--arms '[uniform, staged]' --seeds 3",
    "tune": "--num_trials 40 --space.curriculum.rollback_factor '{low: 1.1, high: 3}'",
    "plan": "--gpu A10G --training.batch_size 2",
    "compare": "--last 5",
}


class ExtraFile(NamedTuple):
    """A second configuration file of an entry point."""

    config_class: type[Section]
    default: str


@dataclass(frozen=True)
class Arguments(Generic[ConfigType]):
    """The configurations of a parsed and checked command line."""

    config: ConfigType
    extra: Mapping[str, Any]


def parse_arguments(
    argv: Sequence[str],
    *,
    entry_point: str,
    description: str,
    config_class: type[ConfigType],
    default_config: str,
    extra_files: Mapping[str, ExtraFile] | None = None,
) -> Arguments[ConfigType]:
    """Load the files of a command line, with its options `--section.key value` on top."""
    files = {"config": ExtraFile(config_class, default_config), **(extra_files or {})}
    if "-h" in argv or "--help" in argv:
        from pixelis.config.help_text import build_help
        from pixelis.curriculum import CurriculumConfig

        open_sections = {"curriculum": CurriculumConfig}
        example = EXAMPLES.get(entry_point, "")
        print(build_help(entry_point, description, files, open_sections, example))
        raise SystemExit(0)

    owners = {name: option for option, file in files.items() for name in file[0].model_fields}
    fields = dict(pair for file in files.values() for pair in walk_fields(file.config_class))
    switches = {key for key, field in fields.items() if field.annotation is bool}
    paths = {option: file.default for option, file in files.items()}
    overrides: dict[str, list[tuple[str, str]]] = {option: [] for option in files}
    for key, value in _read_options(argv, switches):
        section = key.partition(".")[0]
        if key in files:
            paths[key] = value
        elif section in owners:
            overrides[owners[section]].append((key, value))
        else:
            raise ConfigError(unknown_key(key, "the command line", owners, fields))
    loaded: dict[str, Any] = {
        option: load_config(file.config_class, find_config(paths[option]), overrides[option])
        for option, file in files.items()
    }
    return Arguments(config=loaded.pop("config"), extra=loaded)


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
        # A path that is too long, below a file, on a read-only or full disk, and so on.
        print(f"error: {str(error.filename):.200}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _read_options(argv: Sequence[str], switches: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield key and value of each option; a switch without a value is true."""
    left = list(argv)
    while left:
        option = left.pop(0)
        if not option.startswith("--") or option == "--":
            usage = "options look like --config FILE or --section.key VALUE"
            raise ConfigError(f"Unexpected argument {option!r}: {usage}")
        name, equals, value = option[2:].partition("=")
        key = name.replace("-", "_")  # the guide writes --exp-name
        if not equals:
            if left and not left[0].startswith("--"):
                value = left.pop(0)
            elif key in switches:
                value = "true"
            else:
                raise ConfigError(f"{key} needs a value: --{key} VALUE or --{key}=VALUE")
        yield key, value
