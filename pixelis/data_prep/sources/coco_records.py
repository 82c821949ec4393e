"""COCO's records, checked: what an annotation says, and its mask."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from pixelis.data_prep.annotated_image import Box
from pixelis.data_prep.importing.draft import check_markup
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.tasks.object_counting import MAX_COUNT
from pixelis.operations.pixels import Mask

PAIR_TASKS = ("geometric_comparison", "spatial_reasoning", "relationship_detection")
TASKS = ("attribute_recognition", "object_counting", *PAIR_TASKS, "text_extraction")
# What an annotation is good for.
THING = "thing"
LEGIBLE = "legible text"
ILLEGIBLE = "illegible text"
LEFT_OUT = "left out"
# Every reason that an image or an annotation is left out for.
COCO_REASONS = {
    "wrong_type": "a field has a type or a value that it may not have",
    "duplicate_id": "an earlier record has the same id, or an earlier image the same file",
    "no_image": "the image's file does not exist",
    "unreadable_image": "the image does not open",
    "outside_folder": "the image lies outside the image folder",
    "too_large": "the image exceeds a fixed bound",
    "size_differs": "the image's size is not the one that the JSON gives",
    "turned_image": "EXIF turns the image, and its size does not tell which way its boxes count",
    "unknown_image": "the annotation is of no listed image",
    "rejected_image": "the annotation is of an image that was turned away",
    "unknown_category": "the annotation is of no listed category",
    "markup": "a name or a text holds a tag of calls and answers, or a special token",
    "broken_box": "the box is no box inside the image",
    "broken_mask": "the segmentation cannot be read, is empty, or does not fit its box",
}
# Annotators' boxes end up to a pixel outside, by rounding; what is further out is an error.
MARGIN = 1.0
# Overlap (IoU) of an annotation's box with that of its mask.
MIN_FIT = 0.5
# A special token as chat templates write them, such as `<|im_end|>`.
_SPECIAL = re.compile(r"<\|[^<|>]*\|>")
MAX_NAME = 100
MAX_TEXT = 400
# Five bits each; a run of an image of MAX_PIXELS, and its sign, take fewer.
_MAX_GROUPS = 7


class Annotation(NamedTuple):
    """What is known of a thing in an image.

    Attributes:
        box: in pixels, x2 and y2 exclusive.
        rle: pycocotools' form of the mask; None where the box is the mask.
        crowd: it stands for several things.
        text: what is written; empty where it is no text, or not legible.
    """

    box: Box
    rle: Mapping[str, Any] | None
    crowd: bool
    text: str


class Mark(NamedTuple):
    """What one annotation says; the annotation is None where it cannot be told of."""

    name: str
    kind: str
    annotation: Annotation | None


def tasks_of(marks: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The tasks that an image with such names and kinds of marks can be asked about."""
    left_out = {name for name, kind in marks if kind in (LEFT_OUT, ILLEGIBLE)}
    counts = Counter(name for name, kind in marks if kind == THING)
    if counts:
        yield "attribute_recognition"
    known = {name: count for name, count in counts.items() if name not in left_out}
    if any(count <= MAX_COUNT for count in known.values()):
        yield "object_counting"
    if sum(count == 1 for count in known.values()) > 1:
        yield from PAIR_TASKS
    kinds = {kind for _, kind in marks}
    # Of several texts all are asked for: none may be unknown.
    if LEGIBLE in kinds and ILLEGIBLE not in kinds:
        yield "text_extraction"


def check_name(value: Any) -> str:
    """A category's name.

    Raises:
        RejectedError: when it is no short printable text, or holds markup.
    """
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if not name or not name.isprintable() or len(name) > MAX_NAME:
        raise RejectedError(
            "wrong_type",
            f"a category's name must be 1 to {MAX_NAME} printable characters, got {value!r:.60}",
        )
    _check_plain(name, "a category's name")
    return name


def _check_plain(text: str, what: str) -> None:
    """What an annotator wrote is said by the assistant, so it may hold none of what frames that.

    Special tokens are tokenised as text, yet whoever reads the answers as text takes them for ends.
    """
    check_markup(text, what)
    if found := _SPECIAL.search(text):
        raise RejectedError("markup", f"{what} may not hold {found[0]:.60}")


def check_id(value: Any) -> int | str:
    """An id.

    Raises:
        RejectedError: when it is neither an integer nor a text.
    """
    if type(value) is not int and not isinstance(value, str):
        raise RejectedError("wrong_type", f"an id must be an integer or a text, got {value!r:.60}")
    return value


def check_annotation(raw: Mapping[str, Any], size: tuple[int, int]) -> Annotation:
    """Read an annotation of an image of the given width and height.

    Raises:
        RejectedError: when its box or its segmentation is broken, or its text holds markup.
    """
    box = _check_box(raw.get("bbox"), size)
    segmentation = raw.get("segmentation")
    rle = None
    if segmentation is not None and segmentation not in ([], {}):
        rle = _check_segmentation(segmentation, size)
        if coco_mask.area(rle) == 0:
            raise RejectedError("broken_mask", "the segmentation holds no pixel")
        x, y, width, height = (float(side) for side in coco_mask.toBbox(rle))
        if box_overlap(box, (x, y, x + width, y + height)) < MIN_FIT:
            raise RejectedError(
                "broken_mask",
                f"the segmentation reaches over {[x, y, width, height]}, bbox over "
                f"{raw.get('bbox')!r:.80}",
            )
    return Annotation(box, rle, bool(raw.get("iscrowd")), _text(raw))


def mask_of(annotation: Annotation, size: tuple[int, int]) -> Mask:
    """The mask, of shape (height, width)."""
    width, height = size
    if annotation.rle is None:
        mask = np.zeros((height, width), dtype=bool)
        x1, y1, x2, y2 = annotation.box
        mask[y1:y2, x1:x2] = True
        return mask
    with warnings.catch_warnings():
        # Of numpy about pycocotools, for every mask.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.ascontiguousarray(coco_mask.decode(annotation.rle)).astype(bool)


def is_text(raw: Mapping[str, Any]) -> bool:
    """Whether an annotation is of a text, as in COCO-Text."""
    return "utf8_string" in raw or "legibility" in raw


def _text(raw: Mapping[str, Any]) -> str:
    """What is written, where that is known."""
    value = raw.get("utf8_string")
    text = " ".join(value.split()) if isinstance(value, str) else ""
    legible = raw.get("legibility", "legible") == "legible"
    if not legible or not text.isprintable() or len(text) > MAX_TEXT:
        return ""
    _check_plain(text, "utf8_string")
    return text


def _is_number(value: Any, least: float, most: float) -> bool:
    """Whether it is a number in a range; NaN, booleans and integers of any length are no matter."""
    return type(value) in (int, float) and least <= value <= most


def _check_box(value: Any, size: tuple[int, int]) -> Box:
    width, height = size
    most = max(size) + 2 * MARGIN
    numbers = isinstance(value, list) and all(_is_number(part, -MARGIN, most) for part in value)
    if numbers and len(value) == 4:
        x, y, across, down = value
        if across > 0 and down > 0 and x + across <= width + MARGIN and y + down <= height + MARGIN:
            # Rounded outward.
            x1, y1 = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
            x2, y2 = min(width, int(np.ceil(x + across))), min(height, int(np.ceil(y + down)))
            if x1 < x2 and y1 < y2:
                return x1, y1, x2, y2
    raise RejectedError(
        "broken_box",
        f"bbox must be [x, y, width, height] inside {width} x {height}, got {value!r:.80}",
    )


def box_overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - across * down
    return across * down / both if both else 0.0


def _check_segmentation(value: Any, size: tuple[int, int]) -> Mapping[str, Any]:
    width, height = size
    side = max(size)
    if isinstance(value, list):
        for polygon in value:
            right = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            # pycocotools takes memory by the length of an outline.
            if not right or not all(_is_number(part, -side, 2 * side) for part in polygon):
                raise RejectedError(
                    "broken_mask",
                    "a polygon must be an even number of at least 6 coordinates near the image, "
                    f"got {polygon!r:.60}",
                )
        merged: Mapping[str, Any] = coco_mask.merge(coco_mask.frPyObjects(value, height, width))
        return merged
    counts = value.get("counts") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.get("size") != [height, width]:
        raise RejectedError(
            "broken_mask",
            f"a segmentation must be polygons or counts of size {[height, width]}, "
            f"got {value!r:.80}",
        )
    # pycocotools writes where the runs lead, so they are summed up first.
    runs = _decode_runs(counts) if isinstance(counts, str) else counts
    most = width * height
    whole = isinstance(runs, list) and all(type(run) is int and 0 <= run <= most for run in runs)
    if not whole or not isinstance(runs, list) or sum(runs) != most:
        raise RejectedError(
            "broken_mask", f"counts must be runs that sum to {most}, got {counts!r:.60}"
        )
    plain = {"size": [height, width], "counts": runs}
    encoded: Mapping[str, Any] = coco_mask.frPyObjects(plain, height, width)
    return encoded


def _decode_runs(counts: str) -> list[int] | None:
    """COCO's compressed runs: groups of 5 bits, from the third run on less the one before last."""
    runs: list[int] = []
    value = groups = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or groups >= _MAX_GROUPS:
            return None
        value |= (bits & 31) << (5 * groups)
        groups += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << (5 * groups)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = groups = 0
    return None if groups else runs
