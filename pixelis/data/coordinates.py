"""Conversion between stored pixels and seen pixels (of the resized image that the model sees).

The processor resizes each image. Qwen2.5-VL gives coordinates as pixels of the result (sides of
whole multiples of 28, an area within bounds). Data on disk, operations and metrics use stored
pixels. An example is converted when it is encoded; it is unchanged if every image keeps its size.

A box or point belongs to the example's first image; those of TRACK_OBJECT belong to the frames that
the call names. Converted are boxes and points that lie inside the image, masks, areas and the size
of a crop: in arguments and results of calls, also those written in a question as a flawed solution;
in any text as `[x1, y1, x2, y2]` and `(x, y)`; and as the numbers that a conclusion compares
(`by area, ...`, `by center x, ...`). Crops have no coordinates, since no operation accepts them.

Rounding: an edge of a box lies between pixels and goes to the nearest edge, halves up; a point is a
pixel and goes to the pixel that holds its centre; a side of a box that would be empty becomes that
one pixel, and an area is at least one. All in integers, so that every machine rounds alike. If the
image is enlarged, converting back gives the same stored pixels, else the nearest ones.

Texts and values come from users, so whatever cannot be converted stays as it is, and the time taken
grows only with a text's length.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from pixelis.data.example import Example
from pixelis.operations import OPERATIONS, OperationError
from pixelis.operations.base import check_bbox, check_point
from pixelis.operations.masks import decode_mask, encode_mask

Size = tuple[int, int]
Box = tuple[int, int, int, int]
Values = Mapping[str, Any]

_BOX = re.compile(r"\[ *\d{1,6}(?:, *\d{1,6}){3} *\]")
_POINT = re.compile(r"\( *\d{1,6}, *\d{1,6} *\)")
_CALL = re.compile(rf"(?P<operation>{'|'.join(OPERATIONS)}) (?={{)")
# Lines that are read as steps, as many as a trajectory may have: each may resize a mask.
MAX_DESCRIBED_STEPS = 64
# The pixel values that a conclusion compares (`pixelis.data_prep.tasks.conclusions`). Rows
# and columns are not pixels. Repetitions are bounded, so that no text takes long.
_VALUE = r"[^.:]{1,80}: \d{1,20}(?!\d)"
_MEASURED = re.compile(rf"\b[Bb]y (area|box area|center [xy]), {_VALUE}(?:, {_VALUE}){{0,9}}")


@dataclass(frozen=True)
class Frame:
    """The size (width, height) of one image, as it is stored and as the model sees it.

    Its methods convert from stored to seen pixels.
    """

    stored: Size
    seen: Size

    @property
    def is_same(self) -> bool:
        """Whether the model sees the image as it is stored."""
        return self.stored == self.seen

    @property
    def inverse(self) -> "Frame":
        """The conversion from seen to stored pixels."""
        return Frame(self.seen, self.stored)

    def box(self, box: Box) -> Box:
        """Convert a box."""
        (x1, x2), (y1, y2) = (self._span(axis, box[axis], box[axis + 2]) for axis in (0, 1))
        return x1, y1, x2, y2

    def point(self, x: int, y: int) -> tuple[int, int]:
        """Convert a pixel."""
        return self.coordinate(0, x), self.coordinate(1, y)

    def coordinate(self, axis: int, value: int) -> int:
        """Convert the coordinate of a pixel along one axis (0 is x)."""
        return (2 * value + 1) * self.seen[axis] // (2 * self.stored[axis])

    def area(self, value: int) -> int:
        """Convert a number of pixels."""
        seen, stored = self.seen[0] * self.seen[1], self.stored[0] * self.stored[1]
        return max(min(value, 1), (2 * value * seen + stored) // (2 * stored))

    def _span(self, axis: int, low: int, high: int) -> tuple[int, int]:
        seen, stored = self.seen[axis], self.stored[axis]
        first, last = ((2 * edge * seen + stored) // (2 * stored) for edge in (low, high))
        if first < last or low >= high:
            return first, last
        centre = (low + high) * seen // (2 * stored)
        return centre, centre + 1


def frames_of(
    images: Sequence[Image.Image], seen_size: Callable[[Image.Image], Size]
) -> list[Frame]:
    """Return the frames of an example's images, in order."""
    return [Frame(image.size, seen_size(image)) for image in images]


def all_same(frames: Sequence[Frame]) -> bool:
    """Return whether every image is seen as it is stored."""
    return all(frame.is_same for frame in frames)


def as_seen(example: Example, frames: Sequence[Frame]) -> Example:
    """Convert an example to seen pixels; return it unchanged if they equal the stored ones."""
    if all_same(frames):
        return example
    first = frames[0]
    return replace(
        example,
        question=_question_as_seen(example.question, frames),
        trajectory=tuple(
            replace(
                step,
                thought=text_as_seen(step.thought, first),
                arguments=values_as_seen(step.arguments, step.arguments, frames),
                result=values_as_seen(step.result, step.arguments, frames),
            )
            for step in example.trajectory
        ),
        conclusion=text_as_seen(_conclusion_as_seen(example, first), first),
        answer=text_as_seen(example.answer, first),
    )


def text_as_seen(text: str, frame: Frame) -> str:
    """Convert the boxes and points of a text that lie inside the image."""
    if frame.is_same:
        return text

    def convert(match: re.Match[str]) -> str:
        place = [int(number) for number in re.findall(r"\d+", match[0])]
        seen = _place_as_seen(place, frame)
        if seen is place:  # outside of the image
            return match[0]
        return str(seen) if len(seen) == 4 else str(tuple(seen))

    return _POINT.sub(convert, _BOX.sub(convert, text))


def values_as_seen(values: Values, arguments: Values, frames: Sequence[Frame]) -> dict[str, Any]:
    """Convert the arguments or the result of a call to seen pixels; what is invalid stays.

    Args:
        values: the arguments or the result, in stored pixels.
        arguments: the arguments, in stored pixels.
        frames: of the example's images.
    """
    numbers = _frame_numbers(arguments, frames) or [1]
    frame = frames[numbers[0] - 1]
    seen = dict(values)
    for name in ("bbox", "center"):
        if name in seen:
            seen[name] = _place_as_seen(seen[name], frame)
    if {"x", "y"} <= seen.keys():
        seen["x"], seen["y"] = _place_as_seen([seen["x"], seen["y"]], frame)
    if isinstance(seen.get("boxes"), list) and "frames" in arguments:
        pairs = zip(numbers, seen["boxes"], strict=False)
        seen["boxes"] = [_place_as_seen(box, frames[number - 1]) for number, box in pairs]
    if type(seen.get("area")) is int and 0 <= seen["area"] <= math.prod(frame.stored):
        seen["area"] = frame.area(seen["area"])
    if "mask" in seen and not frame.is_same:
        with suppress(OperationError):
            mask = Image.fromarray(decode_mask(seen["mask"], frame.stored))
            resized = mask.resize(frame.seen, Image.Resampling.NEAREST)
            seen["mask"] = encode_mask(np.asarray(resized))
    if "error" in seen:  # repeats the arguments
        seen["error"] = text_as_seen(str(seen["error"]), frame)
    size, box = seen.get("size"), arguments.get("bbox")
    if isinstance(size, list | tuple) and all(type(side) is int for side in size):
        seen_box = _place_as_seen(box, frame)
        if seen_box is not box:  # of the crop, which is resized for the model anyway
            sides = zip(size, _sides(seen_box), _sides(box), strict=False)
            seen["size"] = [side * new // old for side, new, old in sides]
    return seen


def call_as_stored(operation: str, arguments: Any, frames: Sequence[Frame]) -> Any:
    """Convert the arguments of a model's call to stored pixels; keep those of an invalid call.

    Raises:
        OperationError: when a box or point lies outside of the image, in seen pixels.
    """
    known = OPERATIONS.get(operation) if isinstance(operation, str) else None
    if all_same(frames) or known is None or not isinstance(arguments, Mapping):
        return arguments
    numbers = _frame_numbers(arguments, frames)
    if not known.accepts({**known.defaults, **arguments}) or not numbers:
        return arguments
    size = frames[numbers[0] - 1].seen
    if "bbox" in arguments:
        check_bbox(arguments["bbox"], size)
    if "x" in arguments:
        check_point(arguments["x"], arguments["y"], size)
    if "mask" in arguments:
        decode_mask(arguments["mask"], size)
    return values_as_seen(arguments, arguments, [frame.inverse for frame in frames])


def _place_as_seen(value: Any, frame: Frame) -> Any:
    """Convert a box or a point inside the image to a list; return anything else as it is."""
    with suppress(OperationError):
        if isinstance(value, list | tuple) and len(value) == 2:
            x, y = value
            return list(frame.point(*check_point(x, y, frame.stored)))
        return list(frame.box(check_bbox(value, frame.stored)))
    return value


def _sides(box: Any) -> Size:
    return box[2] - box[0], box[3] - box[1]


def _frame_numbers(arguments: Values, frames: Sequence[Frame]) -> list[int]:
    """Return the frames that a call names, [1] if it names none; empty if one does not exist."""
    numbers = arguments.get("frames", [1])
    if not isinstance(numbers, list | tuple):
        return []
    exist = all(type(number) is int and 1 <= number <= len(frames) for number in numbers)
    return list(numbers) if exist else []


def _question_as_seen(question: str, frames: Sequence[Frame]) -> str:
    """Convert a question line by line: described steps as steps, other lines as text."""
    lines, num_described = [], 0
    for line in question.split("\n"):
        converted = None
        if "} -> {" in line and num_described < MAX_DESCRIBED_STEPS:
            num_described += 1
            converted = _described_step_as_seen(line, frames)
        lines.append(text_as_seen(line, frames[0]) if converted is None else converted)
    return "\n".join(lines)


def _described_step_as_seen(line: str, frames: Sequence[Frame]) -> str | None:
    """Convert a line that ends in a call and its result; None for other lines."""
    start = _CALL.search(line)
    if start is None:
        return None
    decoder = json.JSONDecoder()
    try:
        arguments, end = decoder.raw_decode(line, start.end())
        arrow = line[end : end + 4]
        result, end = decoder.raw_decode(line, end + 4)
        if arrow != " -> " or end != len(line):
            return None
        seen = values_as_seen(arguments, arguments, frames)
        seen_result = values_as_seen(result, arguments, frames)
        call = f"{start['operation']} {json.dumps(seen)} -> {json.dumps(seen_result)}"
    except (TypeError, ValueError, RecursionError):  # not written by `describe_step`
        return None
    return text_as_seen(line[: start.start()], frames[0]) + call


def _conclusion_as_seen(example: Example, frame: Frame) -> str:
    """Convert the pixel values that a conclusion compares."""
    # A box's area is that of the converted box.
    areas = {}
    for step in example.trajectory:
        box = step.arguments.get("bbox")
        if (seen := _place_as_seen(box, frame)) is not box:
            (width, height), (seen_width, seen_height) = _sides(box), _sides(seen)
            areas[width * height] = seen_width * seen_height

    def convert(match: re.Match[str]) -> str:
        def value(number: re.Match[str]) -> str:
            amount = int(number[0])
            if match[1].startswith("center"):
                return str(frame.coordinate("xy".index(match[1][-1]), amount))
            known = areas.get(amount) if match[1] == "box area" else None
            return str(known or frame.area(amount))

        return re.sub(r"(?<=: )\d+", value, match[0])

    return _MEASURED.sub(convert, example.conclusion)
