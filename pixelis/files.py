"""Write files and folders atomically: under a temporary name, synced, then renamed.

Whenever a process is killed, a reader finds the old content or the new one, never a part.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelis.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
TORCH_CUT_OFF = ("unexpected pos", "iostream error")  # torch.save, which gives no number
MIB = 2**20


def expand_home(path: str) -> Path:
    """Return a path with a leading ~ replaced by the home folder.

    Raises:
        UserError: when the user after the ~ is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path!r:.200} is in a home folder that is not known here") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name in the same folder, sync it, and rename it.

    Raises:
        OSError: when the disk refuses the write, with the path and, for a full disk, the needed and
            the free space. The temporary file is removed and the old content stays.
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
        raise describe_write_error(error, path, len(data)) from error


def replace_folder(staged: Path, path: Path) -> None:
    """Sync a finished folder and rename it to its final path, replacing an old folder.

    `recover_folder` repairs a kill between the two renames.

    Raises:
        OSError: when the disk refuses it; the old folder is restored.
    """
    fsync_folder(staged)
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if path.is_dir():
            os.replace(path, old)
        os.replace(staged, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
    fsync(path.parent)


def recover_folder(left: Path, path: Path) -> None:
    """Remove a folder that a process killed in `replace_folder` left, or restore it to `path`.

    `left` is the staged folder or, with the suffix .old, the folder that it was to replace.
    """
    if left.suffix == ".old" and not path.exists():
        os.replace(left, path)
        fsync(path.parent)
    else:
        shutil.rmtree(left, ignore_errors=True)


def recover_folders(path: Path) -> None:
    """Remove or restore what killed processes left beside a folder; the caller holds its lock."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.\w+\.(new|old)")
    for left in sorted(path.parent.iterdir()):
        if ours.fullmatch(left.name):
            recover_folder(left, path)


@contextmanager
def staged_folder(
    path: Path, needed: Callable[[Path], float] = lambda staged: folder_bytes(staged)
) -> Iterator[Path]:
    """Yield an empty folder, which replaces `path` when the block ends without an error.

    The caller holds a lock: what killed processes left beside `path` is removed or restored.

    Args:
        path: the final path.
        needed: returns the bytes that the yielded folder needs, for the error of a full disk.

    Raises:
        OSError: when it cannot be written, naming the path; nothing is left behind.
    """
    recover_folders(path)
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        staged.mkdir()
        yield staged
        replace_folder(staged, path)
    except OSError as error:
        raise describe_write_error(error, path, needed(staged)) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def fsync(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_folder(folder: Path) -> None:
    """Flush everything below a folder to the disk, contents before names.

    Files get the permissions of any new file, as umask or the parent folder's rules gave them to
    the folder: safetensors makes its files for their owner alone.
    """
    given = folder.stat().st_mode & 0o666
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        if given & ~mode:
            path.chmod(mode | given)
        fsync(path)
    fsync(folder)


def is_disk_full(error: BaseException) -> bool:
    """Return whether a disk or quota is full; of some libraries only the text says so."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    if isinstance(error, RuntimeError) and any(text in str(error) for text in TORCH_CUT_OFF):
        return True
    return any(f"os error {number})" in str(error) for number in FULL)


def describe_write_error(error: OSError, path: Path, needed: float | None = None) -> OSError:
    """Return a write error with its path and, for a full disk, the needed and the free bytes."""
    why = describe_full_disk(path, needed) if is_disk_full(error) else error.strerror or str(error)
    return OSError(error.errno, why, str(path))


def describe_full_disk(path: Path, needed: float | None = None) -> str:
    """Return the text about a full disk: the needed bytes, if known, and the free space."""
    while not path.exists() and path != path.parent:
        path = path.parent
    required = f"about {_amount(needed)} needed, " if needed else ""
    return f"no space left on its disk: {required}{_amount(shutil.disk_usage(path).free)} free"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder; files that vanish meanwhile count as 0."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextmanager
def explain_write_errors(path: Path, needed: float | None = None) -> Iterator[None]:
    """Add the path, and for a full disk the needed and free bytes, to disk errors in the block.

    Raises:
        OSError: also for a full disk that a library reports by its own exception class.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and not is_disk_full(error):
            raise
        raise describe_write_error(error, path, needed) from error
    except Exception as error:  # safetensors has its own class
        if not is_disk_full(error):
            raise
        raise OSError(errno.ENOSPC, describe_full_disk(path, needed), str(path)) from error


def _amount(num_bytes: float) -> str:
    return f"{num_bytes / MIB:,.1f} MiB"
