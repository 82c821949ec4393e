"""sync: send the records that runs could not send while MLflow was away."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import run_cli
from pixelis.errors import ConfigError

DEFAULT = "outputs"
HELP = f"""usage: pixelis sync [FOLDER ...] [--folder FOLDER]

Send to MLflow what runs could not send while it was away, and end the runs. Looks for
journal-<run id>.jsonl in the folders and everything below them, and sends what is left of each;
the files stay. Runs of this machine whose processes were killed become KILLED. The store is the one
that MLFLOW_TRACKING_URI names.

FOLDER           the training.output_dir of the runs, or a folder above it
                 [default: {DEFAULT}, and the working folder itself without what is below it]
--folder FOLDER  the same, for `mlflow run . -e sync -P folder=FOLDER`

Ends with 1 when MLflow cannot be reached: everything stays as it is, come again later."""


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, send the records, and print one line per run."""
    if "-h" in argv or "--help" in argv:
        print(HELP)
        return 0
    folders = _folders(argv)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"folder must be a folder that exists, got {str(folder)!r}")

    from pixelis.tracking import deliver_journals, end_killed_runs, find_journals

    # A run without an output_dir keeps its journal in the folder where it was started.
    paths = find_journals(folders or [Path(DEFAULT)], [] if folders else [Path()])
    is_delivered, lines = deliver_journals(paths)
    if not lines:
        print(f"nothing to deliver in {', '.join(map(str, folders)) or DEFAULT}")
    for line in [*lines, *end_killed_runs()]:
        print(line, flush=True)
    return 0 if is_delivered else 1


def _folders(argv: Sequence[str]) -> list[Path]:
    folders, argv_left = [], list(argv)
    while argv_left:
        argument = argv_left.pop(0)
        name, equals, value = argument[2:].partition("=")
        if not argument.startswith("--"):
            folders.append(Path(argument))
        elif name != "folder":
            raise ConfigError(f"Unknown key {name!r} in the command line. Valid keys here: folder.")
        elif equals or argv_left:
            folders.append(Path(value if equals else argv_left.pop(0)))
        else:
            raise ConfigError("folder needs a value: --folder VALUE or --folder=VALUE")
    return folders


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
