"""Files and folders that are whole or not there: written beside their place, synced, put there.

Whoever reads a place sees what it held or what it is to hold, whenever a process is killed.
"""

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelis.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
MIB = 2**20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def expanded(path: str) -> Path:
    """A path with the home folder in place of a ~ at its beginning.

    Raises:
        UserError: when nobody of that name is known here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path!r:.200} is in a home folder that is not known here") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name in the same folder, sync it, put it in its place.

    Args:
        path: the file.
        content: a text is written as UTF-8.

    Raises:
        OSError: when the disk does not take it, naming the path and, of a full one, the space that
            is needed and that is free. Nothing is left of it, and what the place held stays.
    """
    data = content.encode() if isinstance(content, str) else content
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with staged.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except OSError as error:
        with suppress(OSError):
            staged.unlink()
        raise named(error, path, len(data)) from error


def put_folder(staged: Path, place: Path) -> None:
    """Sync a finished folder and put it in its place, whatever stood there before.

    Raises:
        OSError: when the disk does not take it; what stood there is there again.
    """
    sync_folder(staged)
    if not place.is_dir():
        os.replace(staged, place)
    elif exchange(staged, place):
        shutil.rmtree(staged, ignore_errors=True)
    else:  # two moves, where the system knows no exchange; `clear_left` mends a kill between
        old = place.with_name(f".{place.name}.{os.getpid()}.old")
        try:
            os.replace(place, old)
            os.replace(staged, place)
        except BaseException:
            if old.exists() and not place.exists():
                os.replace(old, place)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(place.parent)


def clear_left(left: Path, place: Path) -> None:
    """Take away a folder that a process killed in `put_folder` left, or put it back.

    Args:
        left: the staged folder or, with the suffix .old, the one that was moved out of its way.
        place: where they belong.
    """
    if left.suffix == ".old" and not place.exists():
        os.replace(left, place)
        sync(place.parent)
    else:
        shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have all below a folder on disk, contents before names."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_symlink():
            sync(path)
    sync(folder)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(second))


def is_full(error: BaseException) -> bool:
    """Whether a disk or a quota had no room: libraries in other languages say so in words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(f"os error {number})" in str(error) for number in FULL)


def named(error: OSError, path: Path, needed: float | None = None) -> OSError:
    """An error of a write with its path, and of a full disk with what is needed and what is free.

    Args:
        error: without a path, as a write raises it.
        path: what was written.
        needed: bytes; None: not known.
    """
    why = no_room(path, needed) if is_full(error) else error.strerror or str(error)
    return OSError(error.errno, why, str(path))


def no_room(path: Path, needed: float | None = None) -> str:
    """That a disk is full, how much is needed (bytes) where that is known, and how much is free."""
    wanted = f"about {_amount(needed)} needed, " if needed else ""
    return f"no space left on its disk: {wanted}{_amount(free_bytes(path))} free"


def free_bytes(path: Path) -> int:
    """Bytes that may be written on the disk of a path, which need not be there yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, as long as they are there."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextmanager
def writing(path: Path, needed: float | None = None) -> Iterator[None]:
    """Let an error of the disk in this block name the path, and the space where it is full.

    Args:
        path: what is written.
        needed: bytes; None: not known.

    Raises:
        OSError: of the disk, also where a library says it in a type of its own.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and not is_full(error):
            raise
        raise named(error, path, needed) from error
    except Exception as error:  # safetensors has a type of its own
        if not is_full(error):
            raise
        raise OSError(errno.ENOSPC, no_room(path, needed), str(path)) from error


def _amount(num_bytes: float) -> str:
    return f"{num_bytes / MIB:,.1f} MiB"
