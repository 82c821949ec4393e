"""Images with their annotations, the form in which every source passes data to the tasks.

Tasks see nothing else of a source, so every source (drawn scenes, COCO folders) gets the same
questions. All coordinates are pixels of the first frame; boxes are `(x1, y1, x2, y2)` with x2 and
y2 exclusive.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

Box = tuple[int, int, int, int]
Point = tuple[int, int]
Cell = tuple[int, int]


@dataclass(frozen=True)
class Location:
    """A box and a point that an operation can be called with, and their name in a thought."""

    name: str
    box: Box
    point: Point


@dataclass(frozen=True)
class Instance:
    """One annotated object or text."""

    name: str  # its name in a question, such as `red circle`, `text` or `dog`
    kind: str  # its shape or its category, by which objects are counted
    location: Location  # the box and the point that a call uses to look at it
    extent: Box  # the box of its visible pixels
    area: int  # the number of its visible pixels
    position: Point  # its coordinates along the two axes of the image (see `AnnotatedImage.axes`)
    colour: str = ""  # the name of its colour; empty without a clear one
    # Row and column on the grid of a drawn scene; decides which objects are neighbours.
    cell: Cell | None = None
    small: bool = False  # whether to zoom in before asking for its properties
    text: str = ""  # the characters of a text or a handwritten digit
    occluded: float = 0.0  # the share of its pixels that another instance covers, in [0, 1)
    outlined: bool = True  # whether region growing finds its outline, so that it can be segmented
    # Operation -> IoU of what it finds with the annotated mask, where they agree; photographs only.
    ious: tuple[tuple[str, float], ...] = ()
    path: tuple[Location, ...] = ()  # its location in each frame of a video

    def provenance(self) -> dict[str, Any]:
        """Return the facts that are kept in the example's provenance."""
        kept: dict[str, Any] = {"name": self.name, "box": list(self.extent), "area": self.area}
        if self.cell is not None:
            kept["cell"] = list(self.cell)
        if self.text:
            kept["text"] = self.text
        if self.occluded:
            kept["occluded"] = round(self.occluded, 4)
        if self.path:
            kept["path"] = [location.name for location in self.path]
        return kept


@dataclass(frozen=True)
class Occlusion:
    """Two overlapping instances: which one covers the other, and where they meet."""

    front: Instance
    back: Instance
    location: Location


@dataclass(frozen=True)
class AnnotatedImage:
    """One image, or the frames of a short video, with everything that is annotated in it."""

    instances: tuple[Instance, ...]  # the annotated objects and texts
    # Returns the frames; called only for questions that are kept.
    draw: Callable[[], tuple[Image.Image, ...]] = field(compare=False)
    free: tuple[Location, ...] = ()  # locations that hold no instance
    # The names of a position across and down, such as `Column` and `Row`.
    axes: tuple[str, str] = ("column", "row")
    # Two centres closer than this (pixels) have no direction to each other.
    min_distance: float = 14.0
    occlusions: tuple[Occlusion, ...] = ()  # which instances cover which
    num_frames: int = 1  # how many frames there are
    uncounted: frozenset[str] = frozenset()  # kinds that may have instances without an annotation
    origin: tuple[tuple[str, Any], ...] = ()  # the file and the id of the image, for provenance

    def objects(self) -> list[Instance]:
        """Return the instances that are not texts."""
        return [instance for instance in self.instances if not instance.text]

    def unique(self) -> list[Instance]:
        """Return the objects whose name belongs to no other instance."""
        names = [instance.name for instance in self.instances]
        return [
            each
            for each in self.objects()
            if names.count(each.name) == 1 and each.kind not in self.uncounted
        ]

    def at(self, cell: Cell) -> Instance | None:
        """Return the instance in a cell of the grid."""
        return next((each for each in self.instances if each.cell == cell), None)


_PLURALS = {
    "person": "people",
    "mouse": "mice",
    "knife": "knives",
    "skis": "skis",
    "scissors": "scissors",
    "sheep": "sheep",
    "broccoli": "pieces of broccoli",
}


def plural(kind: str) -> str:
    """Return the plural of a kind; the irregular ones are those among COCO's categories."""
    if kind in _PLURALS:
        return _PLURALS[kind]
    if kind.endswith(("s", "x", "ch", "sh")):
        return f"{kind}es"
    if kind.endswith("y") and kind[-2:-1] not in tuple("aeiou"):
        return f"{kind[:-1]}ies"
    return f"{kind}s"
