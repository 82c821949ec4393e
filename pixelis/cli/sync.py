"""sync: send the records that runs could not send while MLflow was away."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import Parser, run_cli
from pixelis.errors import ConfigError

DEFAULT = "outputs"
NOTE = """Looks for journal-<run id>.jsonl in the folders and everything below them, and sends what
is left of each; the files stay. Runs of this machine whose processes were killed become KILLED.
The store is the one that MLFLOW_TRACKING_URI names. Ends with 1 when MLflow cannot be reached:
everything stays as it is, come again later."""


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, send the records, and print one line per run."""
    parser = Parser("sync")
    parser.epilog = f"{NOTE}\n\n{parser.epilog}"
    what = "the training.output_dir of the runs, or a folder above it"
    default = f"[default: {DEFAULT}, and the working folder without what is below it]"
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"{what} {default}")
    parser.add_argument("--folder", action="append", default=[], help="the same")
    arguments = parser.parse_args(argv)
    folders = [Path(folder) for folder in [*arguments.folders, *arguments.folder]]
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


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
