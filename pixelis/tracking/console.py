"""What the tracker says on stderr: shortly, once, and nothing that is nobody's business."""

import sys
from pathlib import Path

from pixelis.files import describe_full_disk, is_disk_full
from pixelis.tracking.source import public


class Console:
    """Says each kind of thing once."""

    def __init__(self) -> None:
        """Nothing is said yet."""
        self._said: set[str] = set()

    def warn(self, kind: str, message: str) -> None:
        """Say a warning, once a kind."""
        if kind not in self._said:
            self._said.add(kind)
            self.say(f"warning: {message}")

    def say(self, message: str) -> None:
        """Say something."""
        print(f"pixelis: {public(message)}", file=sys.stderr, flush=True)

    def mute(self, kind: str) -> None:
        """Leave a kind of warning unsaid: the caller says it better."""
        self._said.add(kind)

    def again(self, kind: str) -> None:
        """Let a kind of warning be said again: what it was about is over."""
        self._said.discard(kind)


def first_line(error: BaseException) -> str:
    """What an error says, shortly; of a full disk, where, what was needed and what is free."""
    if isinstance(error, OSError) and is_disk_full(error):
        names = [Path(str(name)) for name in (error.filename2, error.filename) if name]
        if names and not str(error.strerror).startswith("no space left on its disk"):
            source = names[-1]
            size = source.stat().st_size if len(names) > 1 and source.is_file() else None
            return f"{names[0]}: {describe_full_disk(names[0], size)}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
