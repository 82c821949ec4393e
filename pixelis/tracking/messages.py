"""Warnings of the tracker: short, each kind once, and without what others must not read."""

import logging
from pathlib import Path

from pixelis.files import describe_full_disk, is_disk_full
from pixelis.tracking.privacy import public

logger = logging.getLogger("pixelis.tracking")


class WarnOnce:
    """Logs a kind of warning once, until it is forgotten."""

    def __init__(self, *muted: str) -> None:
        """Begin with nothing logged; warnings of the muted kinds never are."""
        self._logged = set(muted)

    def warn(self, kind: str, message: str) -> None:
        """Log a warning of a kind that was not logged yet."""
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning("%s", public(message))

    def over(self, kind: str, message: str) -> None:
        """Log that what a warning was about is over; it may be logged again."""
        self._logged.discard(kind)
        logger.warning("%s", public(message))


def first_line(error: BaseException) -> str:
    """Return what an error says first; of a full disk where, what is needed and what is free."""
    if isinstance(error, OSError) and is_disk_full(error):
        names = [Path(str(name)) for name in (error.filename2, error.filename) if name]
        if names and not str(error.strerror).startswith("no space left on its disk"):
            source = names[-1]
            size = source.stat().st_size if len(names) > 1 and source.is_file() else None
            return f"{names[0]}: {describe_full_disk(names[0], size)}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
