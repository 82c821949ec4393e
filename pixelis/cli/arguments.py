"""The entry points, their command line and their exit codes.

`--help` must stay fast, so this module imports nothing heavier than yaml and pydantic.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pixelis.cli.console import (
    HELP,
    ConsoleOptions,
    configure_console,
    configure_logging,
    protect_process,
    read_options,
)
from pixelis.config import CONFIG_FILES, find_config, load_config, unknown_key, walk_fields
from pixelis.errors import ConfigError, UserError
from pixelis.files import describe_full_disk, is_disk_full

INTERRUPTED = 130  # exit code after Ctrl-C or a signal
MODEL = "configs/model_arch.yaml"


class EntryPoint(NamedTuple):
    """What `--help` says of an entry point: its purpose, its files by option, and an example."""

    meaning: str
    files: dict[str, str] = {}
    example: str = ""


ENTRY_POINTS = {
    "data-prep": EntryPoint(
        "make chain-of-thought-and-action data, or import your own (--input)",
        {"config": "configs/data_prep.yaml"},
        "--num_samples 5000 --include_traps",
    ),
    "sft": EntryPoint(
        "fine-tune on a curriculum that advances and rolls back, then evaluate",
        {"config": "configs/training_params.yaml", "model": MODEL},
        "--training.max_steps 300 --curriculum.rollback_threshold -0.1",
    ),
    "evaluate": EntryPoint(
        "roll a trained adapter and its base out on a split, and compare them",
        {"config": "configs/evaluate.yaml", "model": MODEL},
        "--adapter outputs/sft/final --split validation",
    ),
    "ask": EntryPoint("ask an adapter about images of your own", {"model": MODEL}),
    "app": EntryPoint("the same as ask on a page in the browser", {"model": MODEL}),
    "export": EntryPoint(
        "merge an adapter into its base, compare, and save it for transformers and vLLM",
        {"config": "configs/export.yaml", "model": MODEL},
        "--adapter outputs/sft/final --output_dir outputs/merged",
    ),
    "ablate": EntryPoint(
        "the same budget for a uniform mix and several curricula, over several seeds",
        {"config": "configs/ablate.yaml", "model": MODEL},
        "--arms '[uniform, staged]' --seeds 3",
    ),
    "tune": EntryPoint(
        "search a curriculum's settings with Optuna, and judge the best on fresh seeds",
        {"config": "configs/tune.yaml", "model": MODEL},
        "--num_trials 40 --space.curriculum.rollback_factor '{low: 1.1, high: 3}'",
    ),
    "plan": EntryPoint(
        "what a training would take: memory by part, steps, hours; without weights",
        {"config": "configs/training_params.yaml", "model": MODEL, "plan": "configs/plan.yaml"},
        "--gpu A10G --training.batch_size 2",
    ),
    "compare": EntryPoint(
        "timelines and results of finished trainings, side by side",
        {"config": "configs/compare.yaml"},
        "--last 5",
    ),
    "show": EntryPoint("examples of a data folder, in the terminal and as a page"),
    "sync": EntryPoint("send to MLflow the records that runs could not send while it was away"),
    "init": EntryPoint("copy the package's configuration files to FOLDER/configs, for editing"),
}


def parse_arguments(name: str, argv: Sequence[str]) -> list[Any]:
    """Load the files of an entry point, with the options `--section.key value` on top.

    Args:
        name: the entry point.
        argv: the command line.

    Returns:
        The checked configuration of each file, in the order of the table above.
    """
    meaning, files, example = ENTRY_POINTS[name]
    kinds = {option: CONFIG_FILES[path] for option, path in files.items()}
    if "-h" in argv or "--help" in argv:
        from pixelis.config.help_text import build_help
        from pixelis.curriculum import CurriculumConfig

        shown = {option: (kinds[option], path) for option, path in files.items()}
        about = f"{meaning}\n\n{HELP}"
        print(build_help(name, about, shown, {"curriculum": CurriculumConfig}, example))
        raise SystemExit(0)

    owners = {section: option for option, kind in kinds.items() for section in kind.model_fields}
    fields = dict(pair for kind in kinds.values() for pair in walk_fields(kind))
    switches = {key for key, field in fields.items() if field.annotation is bool}
    paths, overrides = dict(files), {option: list[tuple[str, str]]() for option in files}
    for key, value in _read_options(argv, switches):
        section = key.partition(".")[0]
        if key in files:
            paths[key] = value
        elif section in owners:
            overrides[owners[section]].append((key, value))
        else:
            raise ConfigError(unknown_key(key, "the command line", owners, fields))
    return [
        load_config(kind, find_config(paths[option]), overrides[option])
        for option, kind in kinds.items()
    ]


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


class Parser(argparse.ArgumentParser):
    """The parser of an entry point without configuration files, whose errors are one line."""

    def __init__(self, name: str) -> None:
        """Describe the entry point by the table above."""
        super().__init__(
            f"pixelis {name}",
            description=ENTRY_POINTS[name].meaning,
            epilog=HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError instead of printing the usage."""
        raise ConfigError(message)


def add_adapter_options(parser: Parser) -> None:
    """Add the options that choose an adapter, and a note about those of the model's file."""
    adapter = "folder, runs:/ or models:/ address [default: of the newest finished sft run]"
    parser.add_argument("--adapter", metavar="ADDRESS", help=adapter)
    experiment = "experiment whose newest finished run is taken [default: sft_curriculum]"
    parser.add_argument("--experiment", default="sft_curriculum", metavar="NAME", help=experiment)
    parser.epilog = (
        f"--model FILE names the base's file [default: {MODEL}]; --model.KEY VALUE changes a key "
        "of it, as for evaluate."
    )


def run_cli(main: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run an entry point as its console options say; a user's error is one line and exit code 2."""
    protect_process()
    configure_logging()
    options, fault = ConsoleOptions(), Exception()
    try:
        options, left = read_options(sys.argv[1:] if argv is None else argv)
        configure_console(options)
        if options.version:
            # Imported here: for a worker process, a folder `pixelis` in the working folder, such as
            # the checkout itself, can hide the package's own module.
            from pixelis import __version__

            print(f"pixelis {__version__}")
            return 0
        return main(left)
    except UserError as error:
        fault, message = error, str(error)
    except OSError as error:
        fault = error
        # A path that is too long, below a file, on a read-only or full disk, and so on.
        message = f"{str(error.filename):.200}: {error.strerror}"
        if error.filename is None:
            if not is_disk_full(error):
                raise
            folders = f"the working folder, or {tempfile.gettempdir()}"
            message = f"{describe_full_disk(Path())} ({folders})"
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    logging.getLogger("pixelis").error("%s", message, exc_info=options.verbose and fault)
    return 2
