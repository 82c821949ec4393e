"""Where calls look: boxes and points of their arguments and results, drawn with numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pixelis.data_prep.difficulty.multi import Box, find_boxes

MARK = "#d6006c"  # apart from the colours of drawn objects
REFERENCE = "#00857c"
# Small images are enlarged by a whole factor to about this side, large ones reduced to it.
SIDE = 440
LABEL = 13  # height of a label's letters

Place = tuple[float, ...]  # a box or a point


@dataclass(frozen=True)
class Mark:
    """A box (x1, y1, x2, y2) or a point (x, y) in pixels of its image, with its label."""

    place: Place
    label: str
    colour: str = MARK


def find_places(arguments: Any, result: Mapping[str, Any] | None, frame: int) -> list[Place]:
    """The boxes and points of a call in a frame; without frames of its own it is about the first.

    A call over frames has its box in each of them as its result, if it found the object.

    Args:
        arguments: of the call, whatever the model wrote.
        result: of the call.
        frame: counted from 1.
    """
    if not isinstance(arguments, Mapping):
        return []
    named: list[Box] = _boxes(arguments)
    frames = arguments.get("frames")
    if isinstance(frames, list | tuple) and frames:
        named = _boxes(result or {}) or named
        return [box for number, box in zip(frames, named, strict=False) if number == frame]
    if frame != 1:
        return []
    if named:
        return [*named]
    point = arguments.get("x"), arguments.get("y")
    if all(_is_coordinate(each) for each in point):
        return [(float(point[0] or 0), float(point[1] or 0))]
    return []


def _boxes(values: Mapping[str, Any]) -> list[Box]:
    try:
        found = find_boxes(values)
    except OverflowError:  # a whole number of 400 digits
        return []
    return [box for box in found if all(map(math.isfinite, box))]


def _is_coordinate(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, in [0, 1] (Everingham et al. 2010, section 4.2)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def draw_marks(image: Image.Image, marks: Sequence[Mark], *, side: int = SIDE) -> Image.Image:
    """A copy that is about `side` pixels large, with the marks on it; several labels may share one.

    Marks that lie outside the image are left out, others end at its border.
    """
    scale = side / max(image.size)
    if scale >= 1:
        scale = float(round(scale))  # pixels stay squares
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    shown = image.convert("RGB").resize(size, way)
    labels: dict[tuple[Place, str], list[str]] = {}
    for mark in marks:
        labels.setdefault((mark.place, mark.colour), []).append(mark.label)
    draw = ImageDraw.Draw(shown)
    inside = [
        ([_bounded(v * scale, size[i % 2]) for i, v in enumerate(place)], colour, ",".join(texts))
        for (place, colour), texts in labels.items()
        if _is_inside(place, image.size)
    ]
    for place, colour, _ in inside:
        _draw_place(draw, place, colour)
    for place, colour, text in inside:  # over all boxes
        if text:
            _draw_label(draw, place, text, colour, size)
    return shown


def _is_inside(place: Place, size: tuple[int, int]) -> bool:
    x, y = place[:2]
    far_x, far_y = place[-2:]
    return x <= size[0] and y <= size[1] and far_x >= 0 and far_y >= 0


def _bounded(value: float, limit: int) -> float:
    return min(max(value, 0.0), limit - 1.0)


def _draw_place(draw: ImageDraw.ImageDraw, place: Sequence[float], colour: str) -> None:
    if len(place) == 4:
        x1, y1, x2, y2 = place
        draw.rectangle((x1, y1, x2, y2), outline="white", width=4)
        inner = (x1 + 1, y1 + 1, x2 - 1, y2 - 1) if min(x2 - x1, y2 - y1) > 2 else (x1, y1, x2, y2)
        draw.rectangle(inner, outline=colour, width=2)
    else:
        x, y = place
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour, outline="white", width=2)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    place: Sequence[float],
    label: str,
    colour: str,
    size: tuple[int, int],
) -> None:
    """Beside a place where there is room, so that little of what was looked at is hidden.

    The reference's labels are below: the model may have looked at the same place.
    """
    font = ImageFont.load_default(LABEL)
    width, height = draw.textlength(label, font=font) + 6, LABEL + 4
    x1, y1, y2 = place[0], place[1], place[-1]
    if len(place) == 2:
        x1, y1, y2 = x1 + 7, y1 - 7, y2 + 9
    if colour == REFERENCE:
        top = y2 if y2 + height <= size[1] else y2 - height
    else:
        top = y1 - height if y1 >= height and len(place) == 4 else y1
    left, top = max(0.0, min(x1, size[0] - width)), max(0.0, min(top, size[1] - height))
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.text((left + 3, top + 1), label, fill="white", font=font)
