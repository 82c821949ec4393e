"""The output folder of data-prep: written under a temporary name, then renamed in one step."""

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
from pixelis.files import describe_write_error, is_disk_full, recover_folder, replace_folder

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
        exists = out.exists()
    except OSError as error:
        raise DataError(f"output_dir {out!s:.200} cannot be written: {error}") from error
    if exists and not out.is_dir():
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
    """Yield a temporary folder, which replaces `out` when the block ends without an error.

    At every moment `out` has the complete old files or the complete new ones. Temporary folders of
    killed processes are removed first.

    Args:
        out: the output folder.
        needed: returns the bytes that the folder needs, or None, for the error of a full disk.

    Raises:
        DataError: when `out` has files of others, or cannot be written.
    """
    check_output_folder(out)
    path = out.resolve()  # a link's target
    _clear_leftovers(path)
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        staged.mkdir()
        yield staged
        replace_folder(staged, path)
    except OSError as error:
        reason = (
            describe_write_error(error, staged, needed()).strerror if is_disk_full(error) else error
        )
        raise DataError(f"output_dir {out} cannot be written: {reason}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _clear_leftovers(out: Path) -> None:
    """Remove the temporary folders of killed processes, or restore the output from them."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.(\d+)\.(?:new|old)")
    for path in sorted(out.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if match and _is_abandoned(path, int(match[1])):
            recover_folder(path, out)


def _is_abandoned(folder: Path, pid: int) -> bool:
    """Return whether the process that made a folder has ended."""
    if pid == os.getpid():
        return True
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # A process younger than the folder has reused the process id.
        return bool(process.create_time() > folder.stat().st_mtime + 1)
    except (psutil.Error, OSError, OverflowError):
        return not psutil.pid_exists(pid)
