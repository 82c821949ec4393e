"""Examples and calls in the pixels that the model sees, and its calls back in stored pixels.

A box or point belongs to the example's first image; TRACK_OBJECT's belong to the frames that it
names. Crops have no pixels of their own: no operation takes them. Examples stay on disk in stored
pixels and are mapped when they are encoded; where every image is seen as it is stored, nothing is
touched, to the letter.

Mapped are: arguments and results of calls, also where a flawed solution is told in a question; the
numbers that a conclusion weighs (`Area of ...`, `Center x of ...`); and, in any text, boxes
`[x1, y1, x2, y2]` and points `(x, y)` that lie inside the first image.

Texts and values are a user's own, so whatever cannot be mapped stays as it is, and the time that
is taken grows with a text's length alone.
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
from pixelis.operations.base import check_bbox, check_point
from pixelis.operations.masks import decode_mask, encode_mask
from pixelis.operations.schema import fits_schema

Size = tuple[int, int]
Box = tuple[int, int, int, int]
Arguments = Mapping[str, Any]

_BOX = re.compile(r"\[ *(\d{1,6}), *(\d{1,6}), *(\d{1,6}), *(\d{1,6}) *\]")
_POINT = re.compile(r"\( *(\d{1,6}), *(\d{1,6}) *\)")
# A step of a flawed solution in a question, see `pixelis.data_prep.generate.describe_step`.
# Where it begins alone: one pattern up to the line's end would take the cube of the line's length.
_TOLD = re.compile(rf"(?P<operation>{'|'.join(OPERATIONS)}) (?={{)")
_ARROW = "} -> {"
# Lines that are read as steps, as many as a trajectory may have: each may draw a mask anew.
MAX_TOLD = 64
# What a conclusion weighs in pixels, see `pixelis.data_prep.tasks.proposal.weigh`: from the measure
# to a number before the next full stop. Rows and columns of drawn scenes are no pixels.
_MEASURE = re.compile(r"\b(Area|Box area|Center [xy]) of ")
_LAST_VALUE = re.compile(r": \d+\Z")
# No image has more pixels, or sides, than a number of so many digits; longer ones stay.
MAX_DIGITS = 20
_MAX_NUMBER = 10**MAX_DIGITS
_VALUE = re.compile(rf"(?<=: )\d{{1,{MAX_DIGITS}}}(?=, |$)")


@dataclass(frozen=True)
class Frame:
    """One image: (width, height) as stored, and as the model sees it."""

    stored: Size
    seen: Size

    @property
    def is_same(self) -> bool:
        """Whether the model sees the image as it is stored."""
        return self.stored == self.seen

    @property
    def back(self) -> "Frame":
        """From seen to stored pixels."""
        return Frame(self.seen, self.stored)

    def box(self, box: Box) -> Box:
        """A box in seen pixels."""
        (x1, x2), (y1, y2) = (self._span(axis, box[axis], box[axis + 2]) for axis in (0, 1))
        return x1, y1, x2, y2

    def point(self, x: int, y: int) -> tuple[int, int]:
        """A pixel among the seen ones."""
        return self.pixel(0, x), self.pixel(1, y)

    def pixel(self, axis: int, value: int) -> int:
        """A pixel's place along one axis (0 is x)."""
        return (2 * value + 1) * self.seen[axis] // (2 * self.stored[axis])

    def area(self, value: int) -> int:
        """A number of pixels."""
        seen, stored = self.seen[0] * self.seen[1], self.stored[0] * self.stored[1]
        return max(min(value, 1), (2 * value * seen + stored) // (2 * stored))

    def _span(self, axis: int, low: int, high: int) -> tuple[int, int]:
        first, last = self._edge(axis, low), self._edge(axis, high)
        if first < last or low >= high:
            return first, last
        centre = (low + high) * self.seen[axis] // (2 * self.stored[axis])
        return centre, centre + 1

    def _edge(self, axis: int, value: int) -> int:
        stored = self.stored[axis]
        return (2 * value * self.seen[axis] + stored) // (2 * stored)


def frames_of(
    images: Sequence[Image.Image], seen_size: Callable[[Image.Image], Size]
) -> list[Frame]:
    """The frames of an example's images, in order."""
    return [Frame(image.size, seen_size(image)) for image in images]


def all_same(frames: Sequence[Frame]) -> bool:
    """Whether there is nothing to map."""
    return all(frame.is_same for frame in frames)


def as_seen(example: Example, frames: Sequence[Frame]) -> Example:
    """The example as the model is told it; the very same where its images are seen as stored."""
    if all_same(frames):
        return example
    steps = tuple(_step_as_seen(step, frames) for step in example.trajectory)
    areas = _box_areas(example.trajectory, frames)
    return replace(
        example,
        question=_question_as_seen(example.question, frames),
        trajectory=steps,
        conclusion=text_as_seen(_weighed_as_seen(example.conclusion, frames[0], areas), frames[0]),
        answer=text_as_seen(example.answer, frames[0]),
    )


def text_as_seen(text: str, frame: Frame) -> str:
    """A text with its boxes and points mapped, those that lie inside the image."""
    width, height = frame.stored

    def box(found: re.Match[str]) -> str:
        x1, y1, x2, y2 = map(int, found.groups())
        inside = x1 < x2 <= width and y1 < y2 <= height
        return str(list(frame.box((x1, y1, x2, y2)))) if inside else found[0]

    def point(found: re.Match[str]) -> str:
        x, y = map(int, found.groups())
        return str(frame.point(x, y)) if x < width and y < height else found[0]

    return text if frame.is_same else _POINT.sub(point, _BOX.sub(box, text))


def call_as_seen(operation: str, arguments: Arguments, frames: Sequence[Frame]) -> dict[str, Any]:
    """The arguments of a call in seen pixels; what is no right argument stays as it is."""
    try:
        return _map_call(operation, arguments, frames)
    except OperationError:
        return dict(arguments)


def call_as_stored(operation: str, arguments: Any, frames: Sequence[Frame]) -> Any:
    """What a model's call means in stored pixels; a call that is none stays as it is.

    Raises:
        OperationError: when a place lies outside of what the model sees, in its own pixels.
    """
    known = OPERATIONS.get(operation) if isinstance(operation, str) else None
    if all_same(frames) or known is None or not isinstance(arguments, Mapping):
        return arguments
    if not known.accepts({**known.defaults, **arguments}):
        return arguments
    return _map_call(operation, arguments, [frame.back for frame in frames])


def result_as_seen(
    operation: str,
    arguments: Arguments,
    seen: Arguments,
    result: Mapping[str, Any],
    frames: Sequence[Frame],
) -> dict[str, Any]:
    """The result of a call in seen pixels.

    Args:
        operation: called.
        arguments: of the call, in stored pixels.
        seen: the same, in the pixels in which the model wrote them.
        result: in stored pixels.
        frames: of the example's images.
    """
    told = dict(result)
    if "error" in told:  # repeats the place that was asked for
        return told | {"error": _error_as_seen(str(told["error"]), arguments, seen)}
    first = frames[0]
    if _is_box(told.get("bbox")):
        told["bbox"] = list(first.box(tuple(told["bbox"])))
    if _are_numbers(told.get("center"), 2):
        told["center"] = list(first.point(*told["center"]))
    if _are_numbers([told.get("area")], 1):
        told["area"] = first.area(told["area"])
    numbers, boxes = arguments.get("frames"), told.get("boxes")
    if isinstance(boxes, list) and all(map(_is_box, boxes)) and _name_frames(numbers, frames):
        pairs = zip(list(numbers or ()), boxes, strict=False)
        told["boxes"] = [list(frames[number - 1].box(tuple(box))) for number, box in pairs]
    if operation == "ZOOM_IN" and "size" in told and _is_box(seen.get("bbox")):
        # As many pixels as the box and the factor say; the crop is resized to be seen anyway.
        zoom = OPERATIONS[operation]
        factor = seen.get("factor", zoom.defaults["factor"])
        x1, y1, x2, y2 = seen["bbox"]
        if fits_schema(factor, zoom.parameters["factor"]):  # else the size stays as it is
            told["size"] = [(x2 - x1) * factor, (y2 - y1) * factor]
    return told


def _map_call(operation: str, arguments: Arguments, frames: Sequence[Frame]) -> dict[str, Any]:
    told = dict(arguments)
    frame = frames[0]
    if operation == "TRACK_OBJECT":
        if not _name_frames(told.get("frames"), frames):
            return told  # the operation says so itself
        frame = frames[told["frames"][0] - 1]
    if "bbox" in told:
        told["bbox"] = list(frame.box(check_bbox(told["bbox"], frame.stored)))
    if {"x", "y"} <= set(told):
        told["x"], told["y"] = frame.point(*check_point(told["x"], told["y"], frame.stored))
    if "mask" in told and not frame.is_same:
        mask = Image.fromarray(decode_mask(told["mask"], frame.stored))
        told["mask"] = encode_mask(np.asarray(mask.resize(frame.seen, Image.Resampling.NEAREST)))
    return told


def _step_as_seen(step: Step, frames: Sequence[Frame]) -> Step:
    seen = call_as_seen(step.operation, step.arguments, frames)
    return replace(
        step,
        thought=text_as_seen(step.thought, frames[0]),
        arguments=seen,
        result=result_as_seen(step.operation, step.arguments, seen, step.result, frames),
    )


def _question_as_seen(question: str, frames: Sequence[Frame]) -> str:
    """A question line by line: the first calls that are told, and words."""
    lines, num_looked_at = [], 0
    for line in question.split("\n"):
        told = None
        if _ARROW in line and num_looked_at < MAX_TOLD:
            num_looked_at += 1
            told = _told_as_seen(line, frames)
        lines.append(text_as_seen(line, frames[0]) if told is None else told)
    return "\n".join(lines)


def _told_as_seen(line: str, frames: Sequence[Frame]) -> str | None:
    """A line that ends in a call and its result, mapped; None where it does not."""
    before, arrow, after = line.rpartition(_ARROW)
    found = _TOLD.search(before)
    if not arrow or not line.endswith("}") or found is None:
        return None
    operation = found["operation"]
    try:
        arguments = json.loads(before[found.end() :] + "}")
        result = json.loads("{" + after)
        seen = call_as_seen(operation, arguments, frames)
        told = result_as_seen(operation, arguments, seen, result, frames)
        call = f"{operation} {json.dumps(seen)} -> {json.dumps(told)}"
    except (TypeError, ValueError, RecursionError):  # not as it was written here
        return None
    return text_as_seen(line[: found.start()], frames[0]) + call


def _weighed_as_seen(text: str, frame: Frame, areas: Mapping[int, int]) -> str:
    """A conclusion with the numbers that it weighs mapped, sentence by sentence."""
    *sentences, rest = text.split(".")
    return ".".join([*(_sentence_as_seen(each, frame, areas) for each in sentences), rest])


def _sentence_as_seen(text: str, frame: Frame, areas: Mapping[int, int]) -> str:
    last = _LAST_VALUE.search(text)
    found = _MEASURE.search(text, 0, last.start()) if last else None
    if found is None:
        return text
    measure = found[1]

    def value(number: re.Match[str]) -> str:
        amount = int(number[0])
        if measure.startswith("Center"):
            return str(frame.pixel("xy".index(measure[-1]), amount))
        if measure == "Box area" and amount in areas:
            return str(areas[amount])
        return str(frame.area(amount))

    return text[: found.end()] + _VALUE.sub(value, text[found.end() :])


def _box_areas(steps: Sequence[Step], frames: Sequence[Frame]) -> dict[int, int]:
    """The areas of the boxes that are looked at, in stored and in seen pixels."""
    boxes = [step.arguments["bbox"] for step in steps if _is_box(step.arguments.get("bbox"))]
    return {_area(box): _area(frames[0].box(tuple(box))) for box in boxes}


def _area(box: Sequence[int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _error_as_seen(text: str, arguments: Arguments, seen: Arguments) -> str:
    """An error with the place that was asked for as it was asked for."""
    if _is_box(arguments.get("bbox")) and _is_box(seen.get("bbox")):
        text = text.replace(str(list(arguments["bbox"])), str(list(seen["bbox"])))
    if {"x", "y"} <= set(arguments) and {"x", "y"} <= set(seen):
        stored, asked = (f"({a['x']}, {a['y']})" for a in (arguments, seen))
        text = text.replace(stored, asked)
    return text


def _name_frames(value: Any, frames: Sequence[Frame]) -> bool:
    numbers = isinstance(value, list | tuple) and value and all(type(v) is int for v in value)
    return bool(numbers) and all(1 <= number <= len(frames) for number in value)


def _are_numbers(value: Any, count: int) -> bool:
    """Whether it is so many integers, none longer than what an image can have."""
    given = isinstance(value, list | tuple) and len(value) == count
    return given and all(type(v) is int and abs(v) < _MAX_NUMBER for v in value)


def _is_box(value: Any) -> bool:
    return _are_numbers(value, 4)
