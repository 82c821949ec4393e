"""The regions (boxes and points) that calls refer to: find them, compare them, draw them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pixelis.data_prep.difficulty.multi import Box, find_boxes

CALL_COLOUR = "#d6006c"  # no drawn object has this colour
REFERENCE_COLOUR = "#00857c"
# Small images are enlarged by an integer factor to about this side, large ones reduced to it.
SIDE = 440
LETTER_HEIGHT = 13

Region = tuple[float, ...]
"""A box (x1, y1, x2, y2) or a point (x, y), in pixels of its image."""


@dataclass(frozen=True)
class LabelledRegion:
    """A region with the label and the colour that it is drawn with."""

    region: Region
    label: str
    colour: str = CALL_COLOUR


def find_regions(arguments: Any, result: Mapping[str, Any] | None, frame: int) -> list[Region]:
    """Return the boxes and points that a call refers to in one frame.

    A call without frames refers to the first one. The result of a call over frames has a box for
    each frame in which the object was found.

    Args:
        arguments: the call's arguments, possibly malformed.
        result: the call's result.
        frame: the number of the frame, from 1.
    """
    if not isinstance(arguments, Mapping):
        return []
    boxes = _finite_boxes(arguments)
    frames = arguments.get("frames")
    if isinstance(frames, list | tuple) and frames:
        boxes = _finite_boxes(result or {}) or boxes
        return [box for number, box in zip(frames, boxes, strict=False) if number == frame]
    if frame != 1:
        return []
    if boxes:
        return [*boxes]
    point: list[Any] = [arguments.get("x"), arguments.get("y")]
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in point):
        return []
    return [tuple(map(float, point))]


def _finite_boxes(values: Mapping[str, Any]) -> list[Box]:
    try:
        boxes = find_boxes(values)
    except OverflowError:  # an integer of 400 digits
        return []
    return [box for box in boxes if all(map(math.isfinite, box))]


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes, in [0, 1] (Everingham et al. 2010, 4.2)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def draw_regions(
    image: Image.Image, regions: Sequence[LabelledRegion], *, side: int = SIDE
) -> Image.Image:
    """Return a copy of about `side` pixels with the regions and their labels drawn on it.

    Regions outside the image are left out, others are cut at its border. Equal regions of one
    colour share a label.
    """
    scale = side / max(image.size)
    if scale >= 1:
        scale = float(round(scale))  # pixels stay squares
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    copy = image.convert("RGB").resize(size, resampling)
    labels: dict[tuple[Region, str], list[str]] = {}
    for each in regions:
        labels.setdefault((each.region, each.colour), []).append(each.label)
    draw = ImageDraw.Draw(copy)
    inside = [
        (_scaled(region, scale, size), colour, ",".join(texts))
        for (region, colour), texts in labels.items()
        if _meets(region, image.size)
    ]
    for region, colour, _ in inside:
        _draw_outline(draw, region, colour)
    for region, colour, text in inside:  # after all outlines, so that none covers a label
        if text:
            _draw_label(draw, region, text, colour, size)
    return copy


def _meets(region: Region, size: tuple[int, int]) -> bool:
    left, top, right, bottom = *region[:2], *region[-2:]
    return left <= size[0] and top <= size[1] and right >= 0 and bottom >= 0


def _scaled(region: Region, scale: float, size: tuple[int, int]) -> Region:
    limits = [size[axis % 2] - 1.0 for axis in range(len(region))]
    return tuple(
        min(max(value * scale, 0.0), limit) for value, limit in zip(region, limits, strict=True)
    )


def _draw_outline(draw: ImageDraw.ImageDraw, region: Region, colour: str) -> None:
    if len(region) == 4:
        x1, y1, x2, y2 = region
        draw.rectangle((x1, y1, x2, y2), outline="white", width=4)
        inner = (x1 + 1, y1 + 1, x2 - 1, y2 - 1) if min(x2 - x1, y2 - y1) > 2 else region
        draw.rectangle(inner, outline=colour, width=2)
    else:
        x, y = region
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour, outline="white", width=2)


def _draw_label(
    draw: ImageDraw.ImageDraw, region: Region, label: str, colour: str, size: tuple[int, int]
) -> None:
    """Draw a label next to its region if there is room, so that it hides little.

    Labels of the reference are below, since the model may have looked at the same region.
    """
    font = ImageFont.load_default(LETTER_HEIGHT)
    width, height = draw.textlength(label, font=font) + 6, LETTER_HEIGHT + 4
    x1, y1, y2 = region[0], region[1], region[-1]
    if len(region) == 2:
        x1, y1, y2 = x1 + 7, y1 - 7, y2 + 9
    if colour == REFERENCE_COLOUR:
        top = y2 if y2 + height <= size[1] else y2 - height
    else:
        top = y1 - height if y1 >= height and len(region) == 4 else y1
    left, top = max(0.0, min(x1, size[0] - width)), max(0.0, min(top, size[1] - height))
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.text((left + 3, top + 1), label, fill="white", font=font)
