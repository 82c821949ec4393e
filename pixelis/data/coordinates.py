"""Conversion between stored pixels and seen pixels (of the resized image that the model sees).

The processor resizes each image. Qwen2.5-VL gives coordinates as pixels of the result (sides of
whole multiples of 28, an area within bounds). Data on disk, operations and metrics use stored
pixels. An example is converted when it is encoded; it is unchanged if every image keeps its size.

A box or point belongs to the example's first image; those of TRACK_OBJECT belong to the frames that
the call names. Converted are: arguments and results of calls, also those written in a question as a
flawed solution; the numbers that a conclusion compares (`Area of ...`, `Center x of ...`); and, in
any text, boxes `[x1, y1, x2, y2]` and points `(x, y)` that lie inside the first image. Crops have
no coordinates, since no operation accepts them.

Rounding: an edge of a box lies between pixels and goes to the nearest edge, halves up; a point is a
pixel and goes to the pixel that holds its centre; a side of a box that would be empty becomes that
one pixel, and an area is at least one. All in integers, so that every machine rounds alike. If the
image is enlarged, converting back gives the same stored pixels, else the nearest ones.

Texts and values come from users, so whatever cannot be converted stays as it is, and the time taken
grows only with a text's length.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.operations import OPERATIONS, OperationError
from pixelis.operations.base import check_bbox, check_point, fits_schema
from pixelis.operations.masks import decode_mask, encode_mask

Size = tuple[int, int]
Box = tuple[int, int, int, int]
Arguments = Mapping[str, Any]

_BOX = re.compile(r"\[ *(\d{1,6}), *(\d{1,6}), *(\d{1,6}), *(\d{1,6}) *\]")
_POINT = re.compile(r"\( *(\d{1,6}), *(\d{1,6}) *\)")
# The beginning of a call in a described step (`pixelis.data_prep.generate.describe_step`). The
# beginning only: one pattern up to the line's end would take the cube of the line's length.
_CALL_START = re.compile(rf"(?P<operation>{'|'.join(OPERATIONS)}) (?={{)")
_ARROW = "} -> {"
# Lines that are read as steps, as many as a trajectory may have: each may resize a mask.
MAX_DESCRIBED_STEPS = 64
# The pixel values that a conclusion compares (`pixelis.data_prep.tasks.proposal.list_values`):
# from the measure to a number before the next full stop. Rows and columns are not pixels.
_MEASURE = re.compile(r"\b(Area|Box area|Center [xy]) of ")
_LAST_VALUE = re.compile(r": \d+\Z")
# Longer numbers are larger than any image and are not converted.
MAX_DIGITS = 20
_MAX_NUMBER = 10**MAX_DIGITS
_VALUE = re.compile(rf"(?<=: )\d{{1,{MAX_DIGITS}}}(?=, |$)")


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
    areas = _box_areas(example.trajectory, first)
    return replace(
        example,
        question=_question_as_seen(example.question, frames),
        trajectory=tuple(_step_as_seen(step, frames) for step in example.trajectory),
        conclusion=text_as_seen(_conclusion_as_seen(example.conclusion, first, areas), first),
        answer=text_as_seen(example.answer, first),
    )


def text_as_seen(text: str, frame: Frame) -> str:
    """Convert the boxes and points of a text that lie inside the image."""
    if frame.is_same:
        return text
    width, height = frame.stored

    def box(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = map(int, match.groups())
        inside = x1 < x2 <= width and y1 < y2 <= height
        return str(list(frame.box((x1, y1, x2, y2)))) if inside else match[0]

    def point(match: re.Match[str]) -> str:
        x, y = map(int, match.groups())
        return str(frame.point(x, y)) if x < width and y < height else match[0]

    return _POINT.sub(point, _BOX.sub(box, text))


def call_as_seen(operation: str, arguments: Arguments, frames: Sequence[Frame]) -> dict[str, Any]:
    """Convert the arguments of a call to seen pixels; invalid ones stay as they are."""
    try:
        return _convert_call(operation, arguments, frames)
    except OperationError:
        return dict(arguments)


def call_as_stored(operation: str, arguments: Any, frames: Sequence[Frame]) -> Any:
    """Convert the arguments of a model's call to stored pixels; keep those of an invalid call.

    Raises:
        OperationError: when a box or point lies outside of the image, in seen pixels.
    """
    known = OPERATIONS.get(operation) if isinstance(operation, str) else None
    if all_same(frames) or known is None or not isinstance(arguments, Mapping):
        return arguments
    if not known.accepts({**known.defaults, **arguments}):
        return arguments
    return _convert_call(operation, arguments, [frame.inverse for frame in frames])


def result_as_seen(
    operation: str,
    arguments: Arguments,
    seen_arguments: Arguments,
    result: Mapping[str, Any],
    frames: Sequence[Frame],
) -> dict[str, Any]:
    """Convert the result of a call to seen pixels.

    Args:
        operation: its name.
        arguments: of the call, in stored pixels.
        seen_arguments: the same, in the seen pixels in which the model writes them.
        result: in stored pixels.
        frames: of the example's images.
    """
    seen = dict(result)
    if "error" in seen:  # repeats the arguments
        return seen | {"error": _error_as_seen(str(seen["error"]), arguments, seen_arguments)}
    first = frames[0]
    if _is_box(seen.get("bbox")):
        seen["bbox"] = list(first.box(tuple(seen["bbox"])))
    if _are_numbers(seen.get("center"), 2):
        seen["center"] = list(first.point(*seen["center"]))
    if _are_numbers([seen.get("area")], 1):
        seen["area"] = first.area(seen["area"])
    numbers, boxes = arguments.get("frames"), seen.get("boxes")
    if isinstance(boxes, list) and all(map(_is_box, boxes)) and _name_frames(numbers, frames):
        pairs = zip(list(numbers or ()), boxes, strict=False)
        seen["boxes"] = [list(frames[number - 1].box(tuple(box))) for number, box in pairs]
    if operation == "ZOOM_IN" and "size" in seen and _is_box(seen_arguments.get("bbox")):
        # Computed from the box and the factor; the crop is resized for the model anyway.
        zoom = OPERATIONS[operation]
        factor = seen_arguments.get("factor", zoom.defaults["factor"])
        x1, y1, x2, y2 = seen_arguments["bbox"]
        if fits_schema(factor, zoom.parameters["factor"]):  # else keep the size
            seen["size"] = [(x2 - x1) * factor, (y2 - y1) * factor]
    return seen


def _convert_call(operation: str, arguments: Arguments, frames: Sequence[Frame]) -> dict[str, Any]:
    converted = dict(arguments)
    frame = frames[0]
    if operation == "TRACK_OBJECT":
        if not _name_frames(converted.get("frames"), frames):
            return converted  # the operation refuses it
        frame = frames[converted["frames"][0] - 1]
    if "bbox" in converted:
        converted["bbox"] = list(frame.box(check_bbox(converted["bbox"], frame.stored)))
    if {"x", "y"} <= set(converted):
        point = check_point(converted["x"], converted["y"], frame.stored)
        converted["x"], converted["y"] = frame.point(*point)
    if "mask" in converted and not frame.is_same:
        mask = Image.fromarray(decode_mask(converted["mask"], frame.stored))
        resized = mask.resize(frame.seen, Image.Resampling.NEAREST)
        converted["mask"] = encode_mask(np.asarray(resized))
    return converted


def _step_as_seen(step: Step, frames: Sequence[Frame]) -> Step:
    seen = call_as_seen(step.operation, step.arguments, frames)
    return replace(
        step,
        thought=text_as_seen(step.thought, frames[0]),
        arguments=seen,
        result=result_as_seen(step.operation, step.arguments, seen, step.result, frames),
    )


def _question_as_seen(question: str, frames: Sequence[Frame]) -> str:
    """Convert a question line by line: described steps as steps, other lines as text."""
    lines, num_described = [], 0
    for line in question.split("\n"):
        converted = None
        if _ARROW in line and num_described < MAX_DESCRIBED_STEPS:
            num_described += 1
            converted = _described_step_as_seen(line, frames)
        lines.append(text_as_seen(line, frames[0]) if converted is None else converted)
    return "\n".join(lines)


def _described_step_as_seen(line: str, frames: Sequence[Frame]) -> str | None:
    """Convert a line that ends in a call and its result; None for other lines."""
    before, arrow, after = line.rpartition(_ARROW)
    start = _CALL_START.search(before)
    if not arrow or not line.endswith("}") or start is None:
        return None
    operation = start["operation"]
    try:
        arguments = json.loads(before[start.end() :] + "}")
        result = json.loads("{" + after)
        seen = call_as_seen(operation, arguments, frames)
        seen_result = result_as_seen(operation, arguments, seen, result, frames)
        call = f"{operation} {json.dumps(seen)} -> {json.dumps(seen_result)}"
    except (TypeError, ValueError, RecursionError):  # not written by `describe_step`
        return None
    return text_as_seen(line[: start.start()], frames[0]) + call


def _conclusion_as_seen(text: str, frame: Frame, areas: Mapping[int, int]) -> str:
    """Convert the pixel values that a conclusion compares, sentence by sentence."""
    *sentences, rest = text.split(".")
    return ".".join([*(_values_as_seen(each, frame, areas) for each in sentences), rest])


def _values_as_seen(sentence: str, frame: Frame, areas: Mapping[int, int]) -> str:
    last = _LAST_VALUE.search(sentence)
    start = _MEASURE.search(sentence, 0, last.start()) if last else None
    if start is None:
        return sentence
    measure = start[1]

    def value(number: re.Match[str]) -> str:
        amount = int(number[0])
        if measure.startswith("Center"):
            return str(frame.coordinate("xy".index(measure[-1]), amount))
        if measure == "Box area" and amount in areas:
            return str(areas[amount])
        return str(frame.area(amount))

    return sentence[: start.end()] + _VALUE.sub(value, sentence[start.end() :])


def _box_areas(steps: Sequence[Step], frame: Frame) -> dict[int, int]:
    """Return the areas of the boxes in the steps' arguments: stored pixels -> seen pixels."""
    boxes = [step.arguments["bbox"] for step in steps if _is_box(step.arguments.get("bbox"))]
    return {_area(box): _area(frame.box(tuple(box))) for box in boxes}


def _area(box: Sequence[int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _error_as_seen(text: str, arguments: Arguments, seen_arguments: Arguments) -> str:
    """Replace the box or point that an error repeats."""
    if _is_box(arguments.get("bbox")) and _is_box(seen_arguments.get("bbox")):
        text = text.replace(str(list(arguments["bbox"])), str(list(seen_arguments["bbox"])))
    if {"x", "y"} <= set(arguments) and {"x", "y"} <= set(seen_arguments):
        stored, seen = (f"({each['x']}, {each['y']})" for each in (arguments, seen_arguments))
        text = text.replace(stored, seen)
    return text


def _name_frames(value: Any, frames: Sequence[Frame]) -> bool:
    numbers = isinstance(value, list | tuple) and value and all(type(v) is int for v in value)
    return bool(numbers) and all(1 <= number <= len(frames) for number in value)


def _are_numbers(value: Any, count: int) -> bool:
    """Return whether it is `count` integers, none longer than an image can have."""
    listed = isinstance(value, list | tuple) and len(value) == count
    return listed and all(type(v) is int and abs(v) < _MAX_NUMBER for v in value)


def _is_box(value: Any) -> bool:
    return _are_numbers(value, 4)
