"""The folder that data-prep leaves: written beside its place, put there whole in one move."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import SUMMARY_FILE, difficulty_file
from pixelis.errors import DataError
from pixelis.files import clear_left, is_full, named, put_folder

REJECTED_FILE = "rejected.jsonl"
DIFFICULTY_FIGURE = "difficulty.png"
EXAMPLES_FIGURE = "examples.png"
DATA_FILES = tuple(difficulty_file(difficulty) for difficulty in DIFFICULTIES)
OURS = {SUMMARY_FILE, REJECTED_FILE, DIFFICULTY_FIGURE, EXAMPLES_FIGURE, *DATA_FILES}


def check_output_folder(out: Path) -> None:
    """Refuse a place where data-prep may not write, before any work is done.

    Raises:
        DataError: when the place is taken by something that data-prep did not write, or the folder
            that it is to lie in cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        taken = out.exists()
    except OSError as error:
        raise DataError(f"output_dir {out!s:.200} cannot be written: {error}") from error
    if taken and not out.is_dir():
        raise DataError(f"output_dir {out} is a file; name a folder")
    if os.path.ismount(out):
        raise DataError(
            f"output_dir {out} is a mount point, which cannot be replaced as a whole; "
            "name a folder in it"
        )
    others = sorted({path.name for path in out.iterdir()} - OURS) if out.is_dir() else []
    if others:
        raise DataError(
            f"output_dir {out} holds other files; name an empty or a new folder "
            f"(found {', '.join(others[:3])})"
        )


@contextmanager
def staged_folder(out: Path, needed: Callable[[], float | None] = lambda: None) -> Iterator[Path]:
    """A folder to write in, which takes the place of `out` when the block ends well.

    Whoever looks at `out` sees the complete old files or the complete new ones, at every moment.
    What a killed process left beside it is taken away first.

    Args:
        out: the place.
        needed: bytes that all of it takes, where that can be told, for the message of a full disk.

    Raises:
        DataError: when `out` is taken by something else, or cannot be written.
    """
    check_output_folder(out)
    place = out.resolve()  # of a link, what it points to
    _clear_leftovers(place)
    staged = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        staged.mkdir()
        yield staged
        put_folder(staged, place)
    except OSError as error:
        why = named(error, staged, needed()).strerror if is_full(error) else error
        raise DataError(f"output_dir {out} cannot be written: {why}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _clear_leftovers(place: Path) -> None:
    """Take away what processes that were killed left beside a place, or put it back."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.(\d+)\.(?:new|old)")
    found = [(path, pattern.fullmatch(path.name)) for path in sorted(place.parent.iterdir())]
    abandoned = [path for path, match in found if match and _is_abandoned(path, int(match[1]))]
    for left in abandoned:
        clear_left(left, place)


def _is_abandoned(folder: Path, number: int) -> bool:
    """Whether the process of a number, which made a folder, is no more."""
    if number == os.getpid():
        return True
    try:
        process = psutil.Process(number)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # One that began after the folder was last written in has only the number from its maker.
        return bool(process.create_time() > folder.stat().st_mtime + 1)
    except (psutil.Error, OSError, OverflowError):
        return not psutil.pid_exists(number)
