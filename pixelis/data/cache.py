"""Things that are computed once for a data folder and kept beside it: built whole or not at all."""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from pixelis.files import describe_write_error, folder_bytes, replace_folder

SCRATCH = ".part"


def cache_folder(data: Path) -> Path:
    """Where the caches of a data folder are: beside it, since data-prep replaces it as a whole."""
    place = data.resolve()
    return place.with_name(f".{place.name}.cache")


def cache_folders(data: Path, *, temporary: bool = True) -> Iterator[Path]:
    """Where the caches of a data folder may be, the best first; the next one where one fails.

    Beside the data; else in the user's cache folder (`XDG_CACHE_HOME`); else, where `temporary`, in
    one of this process alone, which is gone with it.
    """
    yield cache_folder(data)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home) / "pixelis"
    if not temporary:
        return
    passing = tempfile.mkdtemp(prefix="pixelis-cache-")
    atexit.register(shutil.rmtree, passing, ignore_errors=True)
    yield Path(passing)


def cache_key(facts: Mapping[str, Any]) -> str:
    """A name for what is computed from these facts (JSON)."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def build_once(place: Path, build: Callable[[Path], None], *, needed: float | None = None) -> Path:
    """A folder that `build` fills, once; several processes that need it wait for the one that does.

    Args:
        place: where it is to be.
        build: writes into an empty folder beside it, which then takes its place.
        needed: bytes that it takes, for the message of a full disk; None: more than it came to.

    Raises:
        OSError: when the disk does not take it, naming the place; nothing is left of it.
    """
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if place.is_dir():
            return place
        for left in place.parent.glob(f".{place.name}.*{SCRATCH}"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        names = {"prefix": f".{place.name}.", "suffix": SCRATCH}
        scratch = Path(tempfile.mkdtemp(dir=place.parent, **names))
        try:
            scratch.chmod(0o755)  # others of a team may read it
            build(scratch)
            replace_folder(scratch, place)
        except OSError as error:
            raise describe_write_error(error, place, needed or folder_bytes(scratch)) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place
