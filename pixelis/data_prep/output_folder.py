"""The output folder of data-prep: its files, and where it may be."""

import os
from pathlib import Path

from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import SUMMARY_FILE, difficulty_file
from pixelis.errors import DataError

REJECTED_FILE = "rejected.jsonl"
DIFFICULTY_FIGURE = "difficulty.png"
EXAMPLES_FIGURE = "examples.png"
DATA_FILES = tuple(difficulty_file(difficulty) for difficulty in DIFFICULTIES)
OURS = {SUMMARY_FILE, REJECTED_FILE, DIFFICULTY_FIGURE, EXAMPLES_FIGURE, *DATA_FILES}


def check_output_folder(out: Path) -> None:
    """Refuse a path where data-prep may not write, before any work is done.

    Raises:
        DataError: when the folder has files that data-prep did not write, or its parent folder
            cannot be created.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir()} if out.exists() else set()
    except OSError as error:
        raise DataError(f"output_dir {out!s:.200} cannot be written: {error}") from error
    if os.path.ismount(out):
        raise DataError(
            f"output_dir {out} is a mount point, which cannot be replaced as a whole; "
            "name a folder in it"
        )
    if others := sorted(names - OURS):
        raise DataError(
            f"output_dir {out} holds other files; name an empty or a new folder "
            f"(found {', '.join(others[:3])})"
        )
