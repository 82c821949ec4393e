"""The interface through which training and evaluation record, independent of any tracker.

`pixelis.tracking` implements it for MLflow; the library accepts any object with these methods.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Artifact folder of a run's adapters, each in a folder with its own name.
ADAPTERS = "adapters"
# Metrics of the validation split where `data.trusted` takes its place; they decide nothing.
UNTRUSTED = "eval/untrusted/"
_VISIT = re.compile(r"visit-(\d+)-")


def visit_name(index: int, stage: str) -> str:
    """Return the name of the adapter from the end of a stage's visit, which a folder can have."""
    encoding = sys.getfilesystemencoding()  # where it is not UTF-8, it lacks characters
    fit = re.sub(r"[^\w.-]+", "-", stage.encode(encoding, "replace").decode(encoding))
    return f"visit-{index:02d}-{fit}"


def visit_index(name: str) -> int | None:
    """Return the index of the visit that an adapter's name stands for; None for other adapters."""
    match = _VISIT.match(name)
    return int(match[1]) if match else None


class Recorder(Protocol):
    """An object that records metrics, curriculum events, files and figures."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at an optimiser step (the x axis of every chart)."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Record one curriculum event (the fields of `CurriculumEvent.to_dict`)."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file or folder under the artifact path `folder`; below `ADAPTERS`, an adapter."""

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a matplotlib figure under the artifact path `name`."""

    def position(self) -> int:
        """Return the length of the record in bytes, to which a resume can cut it back."""


class NullRecorder:
    """A recorder that keeps nothing, for library use and tests."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore the numbers."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Ignore the event."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Ignore the file."""

    def figure(self, name: str, figure: "Figure") -> None:
        """Ignore the figure."""

    def position(self) -> int:
        """Return 0: nothing is kept."""
        return 0
