"""The tracker's warnings: short, logged once per kind, and without secrets."""

import logging
from pathlib import Path

from pixelis.files import describe_full_disk, is_disk_full
from pixelis.tracking.privacy import public

logger = logging.getLogger("pixelis.tracking")


class WarnOnce:
    """A logger that logs each kind of warning once, until its cause is over."""

    def __init__(self, *muted: str) -> None:
        """Set the kinds that are never logged."""
        self._logged = set(muted)

    def warn(self, kind: str, message: str) -> None:
        """Log a warning, unless one of its kind was logged before."""
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning("%s", public(message))

    def over(self, kind: str, message: str) -> None:
        """Log that the cause of a warning is over; after this it may be logged again."""
        self._logged.discard(kind)
        logger.warning("%s", public(message))


def first_line(error: BaseException) -> str:
    """Return the first line of an error; for a full disk, its path, needed and free space."""
    if isinstance(error, OSError) and is_disk_full(error):
        names = [Path(str(name)) for name in (error.filename2, error.filename) if name]
        if names and not str(error.strerror).startswith("no space left on its disk"):
            source = names[-1]
            size = source.stat().st_size if len(names) > 1 and source.is_file() else None
            return f"{names[0]}: {describe_full_disk(names[0], size)}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
