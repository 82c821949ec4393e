"""sync: deliver what runs could not deliver while MLflow was away."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import run_cli
from pixelis.errors import ConfigError

DEFAULT = "outputs"
HELP = f"""usage: pixelis sync [FOLDER ...] [--folder FOLDER]

Deliver to MLflow what runs could not deliver while it was away, and end the runs. Looks for
pixelis-undelivered-<run id>.jsonl in the folders and everything below them, and removes each file
when its records have arrived. Runs of this machine whose processes were killed become KILLED. The
store is the one that MLFLOW_TRACKING_URI names.

FOLDER           the training.output_dir of the runs, or a folder above it
                 [default: {DEFAULT}, and the working folder itself without what is below it]
--folder FOLDER  the same, for `mlflow run . -e sync -P folder=FOLDER`

Ends with 1 when MLflow cannot be reached: everything stays as it is, come again later."""


def main(argv: Sequence[str]) -> int:
    """Parse, deliver, say what was delivered."""
    if "-h" in argv or "--help" in argv:
        print(HELP)
        return 0
    folders = _folders(argv)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"folder must be a folder that exists, got {str(folder)!r}")

    from pixelis.tracking import deliver_spools, end_killed_runs, find_spools

    # A run without an output_dir leaves its file where it was started.
    found = find_spools(folders or [Path(DEFAULT)], [] if folders else [Path()])
    if not found:
        print(f"nothing to deliver in {', '.join(map(str, folders)) or DEFAULT}")
    is_delivered = deliver_spools(found, _say) if found else True
    end_killed_runs(_say)
    return 0 if is_delivered else 1


def _say(line: str) -> None:
    print(line, flush=True)


def _folders(argv: Sequence[str]) -> list[Path]:
    folders, words = [], list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--"):
            folders.append(Path(word))
        elif name != "folder":
            raise ConfigError(f"Unknown key {name!r} in the command line. Valid keys here: folder.")
        elif equals or words:
            folders.append(Path(value if equals else words.pop(0)))
        else:
            raise ConfigError("folder needs a value: --folder VALUE or --folder=VALUE")
    return folders


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
