"""What training and evaluation record, and no idea of where it goes.

`pixelis.tracking` implements this for MLflow; all below `cli` takes any object of this shape.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# An adapter's folder goes below this one, under its own name.
ADAPTERS = "adapters"
_VISIT = re.compile(r"visit-(\d+)-")


def visit_name(index: int, stage: str) -> str:
    """Return the name of the adapter that a stage's visit ended with."""
    fit = re.sub(r"[^\w.-]+", "-", stage)
    return f"visit-{index:02d}-{fit}"


def visit_index(name: str) -> int | None:
    """Return the visit that an adapter of this name ended; None for another adapter."""
    match = _VISIT.match(name)
    return int(match[1]) if match else None


class Recorder(Protocol):
    """Where metrics, curriculum events, files and figures go."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at an optimiser step (the x axis of every chart)."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Record one curriculum event (the fields of `CurriculumEvent.to_dict`)."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file or a folder under `folder` of the run; below `ADAPTERS`, it is an adapter."""

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a matplotlib figure under the artifact path `name`."""

    def position(self) -> int:
        """Return the length in bytes of all that was recorded, for a checkpoint to go back to."""


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
