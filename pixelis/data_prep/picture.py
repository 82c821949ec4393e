"""What a source of data gives: frames, and the things in them with their truth.

Tasks know nothing else, so that drawn scenes, COCO folders and a third source are asked the same
questions. All coordinates are pixels of the first frame, boxes `(x1, y1, x2, y2)` with x2 and y2
exclusive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

Box = tuple[int, int, int, int]
Point = tuple[int, int]
Cell = tuple[int, int]


@dataclass(frozen=True)
class Spot:
    """A place that an operation can be pointed at, and how a thought names it."""

    place: str
    box: Box
    point: Point


@dataclass(frozen=True)
class Thing:
    """One object or text with its truth.

    Attributes:
        name: how a question names it, such as `red circle`, `text` or `dog`.
        kind: what it is counted by: its shape or its category.
        spot: where to look for it.
        extent: the box of its visible pixels.
        area: its visible pixels.
        position: where it stands along the picture's two axes (see `Picture.axes`).
        colour: its colour's name, where it has one.
        cell: row and column on a grid, where there is one; neighbours are told by it.
        small: worth a closer look before its properties are asked for.
        text: what is written, where it is a text or a handwritten digit.
        occluded: share of its pixels that another thing covers, in [0, 1).
        outlined: region growing finds its outline, so that it can be segmented.
        path: its spot in each frame, where there are several.
    """

    name: str
    kind: str
    spot: Spot
    extent: Box
    area: int
    position: Point
    colour: str = ""
    cell: Cell | None = None
    small: bool = False
    text: str = ""
    occluded: float = 0.0
    outlined: bool = True
    path: tuple[Spot, ...] = ()

    def truth(self) -> dict[str, Any]:
        """What provenance keeps of it."""
        kept: dict[str, Any] = {"name": self.name, "box": list(self.extent), "area": self.area}
        if self.cell is not None:
            kept["cell"] = list(self.cell)
        if self.text:
            kept["text"] = self.text
        if self.occluded:
            kept["occluded"] = round(self.occluded, 4)
        if self.path:
            kept["path"] = [spot.place for spot in self.path]
        return kept


@dataclass(frozen=True)
class Contact:
    """Two things that overlap: which of them covers the other, and where."""

    front: Thing
    back: Thing
    spot: Spot


@dataclass(frozen=True)
class Picture:
    """Frames and the truth about them.

    Attributes:
        things: everything with a known truth.
        draw: gives the frames; called for accepted questions only.
        free: spots where nothing stands.
        axes: what a position across and down is called, such as `Column` and `Row`.
        min_distance: centres closer than this (pixels) are not told apart by direction.
        contacts: which things cover which.
        num_frames: how many images there are.
        uncounted: kinds of which not every one is in `things`.
        origin: where the picture comes from, for provenance (a file and its id).
    """

    things: tuple[Thing, ...]
    draw: Callable[[], tuple[Image.Image, ...]] = field(compare=False)
    free: tuple[Spot, ...] = ()
    axes: tuple[str, str] = ("Column", "Row")
    min_distance: float = 14.0
    contacts: tuple[Contact, ...] = ()
    num_frames: int = 1
    uncounted: frozenset[str] = frozenset()
    origin: tuple[tuple[str, Any], ...] = ()

    def objects(self) -> list[Thing]:
        """The things that are no texts."""
        return [thing for thing in self.things if not thing.text]

    def unique(self) -> list[Thing]:
        """The objects that their name tells from all others."""
        names = [thing.name for thing in self.things]
        return [
            thing
            for thing in self.objects()
            if names.count(thing.name) == 1 and thing.kind not in self.uncounted
        ]

    def at(self, cell: Cell) -> Thing | None:
        """What stands in a cell of the grid."""
        return next((thing for thing in self.things if thing.cell == cell), None)

    def spots(self, *, empty: bool, meant: Sequence[Spot]) -> list[Spot]:
        """Where a wrong look can fall: on nothing, or on a thing that was not meant."""
        if empty:
            return list(self.free)
        boxes = {spot.box for spot in meant}
        return [thing.spot for thing in self.things if thing.spot.box not in boxes]


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
    """The plural of a kind, by English endings and the irregular ones among COCO's categories."""
    if kind in _PLURALS:
        return _PLURALS[kind]
    if kind.endswith(("s", "x", "ch", "sh")):
        return f"{kind}es"
    if kind.endswith("y") and kind[-2:-1] not in tuple("aeiou"):
        return f"{kind[:-1]}ies"
    return f"{kind}s"
