"""COCO's annotations: check each record, decode its mask, and build an annotated image."""

import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from pixelis.data_prep.annotated_image import AnnotatedImage, Box, Instance, Location, Point
from pixelis.data_prep.importing.values import RejectedError, check_assistant_text, show
from pixelis.data_prep.regions import box_iou
from pixelis.operations.base import NothingFound
from pixelis.operations.get_properties import MIN_AREA, object_in_box
from pixelis.operations.pixels import (
    COLOURS,
    MAX_OBJECT_SHARE,
    MIN_CHROMA,
    NEUTRAL,
    TOLERANCE,
    Mask,
    background_colour,
    bounding_box,
    colour_name,
    foreground,
    grow_region,
    largest_region,
    mask_iou,
    pixel_array,
)

Pixels = npt.NDArray[np.int16]

# The uses of an annotation.
OBJECT, LEGIBLE, ILLEGIBLE, LEFT_OUT = "object", "legible text", "illegible text", "left out"
# Because of rounding, boxes may end up to one pixel outside the image; more is an error.
MARGIN = 1.0
# The least IoU of an annotation's box with that of its mask.
MIN_FIT = 0.5
# A special token as chat templates write them, such as `<|im_end|>`.
_SPECIAL = re.compile(r"<\|[^<|>]*\|>")
MAX_NAME, MAX_TEXT = 100, 400
# Groups of five bits of one run: enough for the longest run of MAX_PIXELS, with its sign.
_MAX_GROUPS = 7

TEXT = "text"
# Objects outside of the categories are not annotated, so all objects, or all objects of a colour,
# cannot be counted. No category has this name (see `check_name`).
ANY_KIND = ""
MIN_COLOUR_SHARE = 0.6
# The least IoU of an annotated mask with what an operation finds that may measure it.
MIN_IOU = 0.75
SMALL_SHARE = 0.02
MIN_DISTANCE = 14.0
MIN_DISTANCE_SHARE = 0.05
NUM_FREE = 6
FREE_TRIES = 120
MIN_FREE_SIDE = 12
# Pixels from which a colour is computed, at most.
MAX_SAMPLED = 4096
# The share of a mask's greatest depth at which a pixel counts as deep inside.
CORE = 0.6


class Annotation(NamedTuple):
    """A checked annotation of an image; of a rejected one only the name and the use are known."""

    name: str  # the name of its category
    use: str  # OBJECT, LEGIBLE, ILLEGIBLE, or LEFT_OUT (rejected, or over several objects)
    box: Box | None = None  # in pixels, x2 and y2 exclusive
    runs: bytes | None = None  # the mask in COCO's compressed runs; None if the box is the mask
    text: str = ""  # the written text; empty for objects and illegible texts


def check_name(value: Any) -> str:
    """Return a category's name.

    Raises:
        RejectedError: when the name is not a short printable text, or has markup in it.
    """
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if not name or not name.isprintable() or len(name) > MAX_NAME:
        raise RejectedError(
            "wrong_type",
            f"a category's name must be 1 to {MAX_NAME} printable characters, got {show(value)}",
        )
    return _check_plain(name, "a category's name")


def _check_plain(text: str, what: str) -> str:
    """Reject markup, because names and texts become a part of the assistant's turns.

    Special tokens are tokenised as text, but readers of the answers would take them for the end.
    """
    if special := _SPECIAL.search(text):
        raise RejectedError("markup", f"{what} may not hold {special[0]:.60}")
    return check_assistant_text(text, what)


def check_annotation(record: Mapping[str, Any], name: str, size: tuple[int, int]) -> Annotation:
    """Check an annotation of an image of the given width and height.

    Raises:
        RejectedError: when its box or its segmentation is broken, or its text holds markup.
    """
    box = _check_box(record.get("bbox"), size)
    segmentation = record.get("segmentation")
    runs = None
    if segmentation is not None and segmentation not in ([], {}):
        rle = _check_segmentation(segmentation, size)
        x, y, width, height = (float(side) for side in coco_mask.toBbox(rle))
        if width and height:
            runs = rle["counts"]
        # Of an object as thin as a pixel the mask may be empty: the box is the mask then.
        is_thin = min(box[2] - box[0], box[3] - box[1]) <= 2 * MARGIN
        if not (_fits(box, (x, y, x + width, y + height)) if runs else is_thin):
            raise RejectedError(
                "broken_mask",
                f"the segmentation reaches over {[x, y, width, height]}, bbox over "
                f"{show(record.get('bbox'))}",
            )
    text = _legible_text(record)
    crowd = bool(record.get("iscrowd"))
    if is_text(record):
        use = LEGIBLE if text and not crowd else ILLEGIBLE
    else:
        use = LEFT_OUT if crowd else OBJECT
    return Annotation(name, use, box, runs, text)


def _fits(box: Box, seen: tuple[float, float, float, float]) -> bool:
    """Return whether a mask's box is the annotated one within a pixel, or in most of its area."""
    differences = [abs(one - other) for one, other in zip(box, seen, strict=True)]
    return max(differences) <= MARGIN or box_iou(box, seen) >= MIN_FIT


def is_text(record: Mapping[str, Any]) -> bool:
    """Return whether an annotation is of a text, as in COCO-Text."""
    return "utf8_string" in record or "legibility" in record


def _legible_text(record: Mapping[str, Any]) -> str:
    value = record.get("utf8_string")
    text = " ".join(value.split()) if isinstance(value, str) else ""
    legible = record.get("legibility", "legible") == "legible"
    if not legible or not text.isprintable() or len(text) > MAX_TEXT:
        return ""
    return _check_plain(text, "utf8_string")


def _is_number(value: Any, least: float, most: float) -> bool:
    """Return whether a value is a number in a range; False for NaN and booleans."""
    return type(value) in (int, float) and least <= value <= most


def _check_box(value: Any, size: tuple[int, int]) -> Box:
    width, height = size
    most = max(size) + 2 * MARGIN
    numbers = isinstance(value, list) and all(_is_number(part, -MARGIN, most) for part in value)
    if numbers and len(value) == 4:
        x, y, w, h = value
        if w > 0 and h > 0 and x + w <= width + MARGIN and y + h <= height + MARGIN:
            # Rounded outward.
            x1, y1 = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
            x2, y2 = min(width, int(np.ceil(x + w))), min(height, int(np.ceil(y + h)))
            if x1 < x2 and y1 < y2:
                return x1, y1, x2, y2
    raise RejectedError(
        "broken_box",
        f"bbox must be [x, y, width, height] inside {width} x {height}, got {show(value)}",
    )


def _check_segmentation(value: Any, size: tuple[int, int]) -> Mapping[str, Any]:
    width, height = size
    side = max(size)
    if isinstance(value, list):
        for polygon in value:
            valid = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            # pycocotools needs memory for the length of an outline, so it must stay near the image.
            if not valid or not all(_is_number(part, -side, 2 * side) for part in polygon):
                raise RejectedError(
                    "broken_mask",
                    "a polygon must be an even number of at least 6 coordinates near the image, "
                    f"got {show(polygon)}",
                )
        merged: Mapping[str, Any] = coco_mask.merge(coco_mask.frPyObjects(value, height, width))
        return merged
    counts = value.get("counts") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.get("size") != [height, width]:
        raise RejectedError(
            "broken_mask",
            f"a segmentation must be polygons or counts of size {[height, width]}, "
            f"got {show(value)}",
        )
    # pycocotools does not check runs and could write outside of its memory: check their sum first.
    runs = _decode_runs(counts) if isinstance(counts, str) else counts
    most = width * height
    valid = isinstance(runs, list) and all(type(run) is int and 0 <= run <= most for run in runs)
    if not valid or not isinstance(runs, list) or sum(runs) != most:
        raise RejectedError(
            "broken_mask", f"counts must be runs that sum to {most}, got {show(counts)}"
        )
    plain = {"size": [height, width], "counts": runs}
    encoded: Mapping[str, Any] = coco_mask.frPyObjects(plain, height, width)
    return encoded


def _decode_runs(counts: str) -> list[int] | None:
    """Decode COCO's compressed runs: groups of 5 bits, from the fourth run on as differences."""
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


def _decode(rle: Mapping[str, Any]) -> Mask:
    with warnings.catch_warnings():
        # numpy warns about pycocotools for every mask.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.ascontiguousarray(coco_mask.decode(rle)).astype(bool)


def annotate(
    image: Image.Image,
    annotations: Sequence[Annotation],
    *,
    draw: Callable[[], tuple[Image.Image, ...]],
    origin: tuple[tuple[str, Any], ...],
) -> AnnotatedImage:
    """Make an annotated image of a photograph and its annotations.

    Args:
        image: RGB.
        annotations: the image's annotations; rejected, crowded and illegible ones give no instance,
            but their categories cannot be counted and their boxes are not free.
        draw: returns the image again.
        origin: for provenance.
    """
    pixels = pixel_array(image)
    instances, uncounted, boxes = [], {ANY_KIND}, []
    for each in annotations:
        if each.use in (LEFT_OUT, ILLEGIBLE):
            uncounted.add(each.name)
            boxes += [each.box] if each.box else []
        elif each.box:
            instances.append(_instance(each, each.box, pixels))
    boxes += [instance.extent for instance in instances]
    return AnnotatedImage(
        instances=tuple(instances),
        draw=draw,
        free=_free_locations(pixels, boxes, random.Random(repr(origin))),
        axes=("center x", "center y"),
        min_distance=max(MIN_DISTANCE, MIN_DISTANCE_SHARE * max(image.size)),
        uncounted=frozenset(uncounted),
        origin=origin,
    )


def _instance(annotation: Annotation, box: Box, pixels: Pixels) -> Instance:
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = box
    mask = np.zeros((height, width), dtype=bool)
    mask[y1:y2, x1:x2] = True
    if annotation.runs is not None:
        mask = _decode({"size": [height, width], "counts": annotation.runs})
    inside = pixels[mask]
    median = np.median(inside[:: max(1, len(inside) // MAX_SAMPLED)], axis=0)
    point = _inner_point(mask, pixels, median)
    found = {
        "SEGMENT_OBJECT_AT": _outline_iou(pixels, mask, inside, point),
        "GET_PROPERTIES": _object_iou(pixels, mask, box),
    }
    agreeing = {operation: iou for operation, iou in found.items() if iou >= MIN_IOU}
    name = TEXT if annotation.text else annotation.name
    return Instance(
        name=name,
        kind=name,
        location=Location(str(list(box)), box, point),
        extent=box,
        area=int(mask.sum()),
        position=((x1 + x2) // 2, (y1 + y2) // 2),
        colour=clear_colour(inside) if "GET_PROPERTIES" in agreeing else "",
        small=(x2 - x1) * (y2 - y1) < SMALL_SHARE * width * height,
        text=annotation.text,
        outlined="SEGMENT_OBJECT_AT" in agreeing,
        ious=tuple(agreeing.items()),
    )


def clear_colour(pixels: Pixels) -> str:
    """Return the colour name of the median of pixels (n, 3) if most have it; else empty."""
    sampled = pixels[:: max(1, len(pixels) // MAX_SAMPLED)].astype(np.int32)
    median = np.median(sampled, axis=0)
    name = colour_name(median)
    # Light gray is nearer to pink than to gray: without colour only neutral names are true.
    if np.ptp(median) < MIN_CHROMA and name not in NEUTRAL:
        return ""
    named = np.array(list(COLOURS.values()), dtype=np.int32)
    distances = ((sampled[:, None] - named[None]) ** 2).sum(axis=2)
    share = float((distances.argmin(axis=1) == list(COLOURS).index(name)).mean())
    return name if share >= MIN_COLOUR_SHARE else ""


def _inner_point(mask: Mask, pixels: Pixels, median: npt.NDArray[np.float64]) -> Point:
    """Return a pixel deep inside the mask and near its middle that has its most usual colour."""
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    depth = ndimage.distance_transform_cdt(np.pad(mask[rows, columns], 1), "chessboard")
    y, x = np.nonzero(depth[1:-1, 1:-1] >= max(1, CORE * depth.max()))
    y, x = y + rows.start, x + columns.start
    difference = np.abs(pixels[y, x] - median).max(axis=1) // 8
    off_centre = (y - y.mean()) ** 2 + (x - x.mean()) ** 2
    best = np.lexsort((off_centre, difference))[0]
    return int(x[best]), int(y[best])


def _outline_iou(pixels: Pixels, mask: Mask, inside: Pixels, point: Point) -> float:
    """Return the IoU of a mask and what region growing finds; 0 where they differ at first sight.

    A cheap check of the mask comes first.
    """
    x, y = point
    alike = np.abs(inside - pixels[y, x]).max(axis=1) <= TOLERANCE
    if float(alike.mean()) < MIN_IOU:
        return 0.0
    region = grow_region(pixels, x, y)
    # Compare the boxes too: a thin part of the region outside of the mask would move its centre.
    if (
        region.sum() > MAX_OBJECT_SHARE * region.size
        or box_iou(bounding_box(region), bounding_box(mask)) < MIN_IOU
    ):
        return 0.0
    return mask_iou(region, mask)


def _object_iou(pixels: Pixels, mask: Mask, box: Box) -> float:
    """Return the IoU of a mask and the object that GET_PROPERTIES finds in its box."""
    x1, y1, x2, y2 = box
    region = np.zeros_like(mask)
    try:
        region[y1:y2, x1:x2] = object_in_box(pixels, box)
    except NothingFound:
        return 0.0
    return mask_iou(region, mask)


def _free_locations(
    pixels: Pixels, boxes: Sequence[Box], rng: random.Random
) -> tuple[Location, ...]:
    """Return locations without annotation; first those where the operations find nothing."""
    height, width = pixels.shape[:2]
    background = background_colour(pixels)
    candidates: list[tuple[int, Location]] = []
    for attempt in range(FREE_TRIES if boxes else 0):
        like = rng.choice(boxes)
        # A large object leaves little room, so smaller and smaller boxes are tried.
        divisor = 5 + 10 * attempt // FREE_TRIES
        w, h = min(like[2] - like[0], width // divisor), min(like[3] - like[1], height // divisor)
        x = rng.randrange(max(1, width - w + 1))
        y = rng.randrange(max(1, height - h + 1))
        box = (x, y, x + w, y + h)
        if min(w, h) < MIN_FREE_SIDE or any(box_iou(box, other) > 0 for other in boxes):
            continue
        if len(candidates) == 2 * NUM_FREE:
            break
        location = Location(str(list(box)), box, (x + w // 2, y + h // 2))
        candidates.append((_num_detections(pixels, background, location), location))
    # A stable sort keeps the order drawn among equals.
    candidates.sort(key=lambda pair: pair[0])
    return tuple(dict.fromkeys(location for _, location in candidates[:NUM_FREE]))


def _num_detections(pixels: Pixels, background: Pixels, location: Location) -> int:
    """Count the operations that find something at a location: 0, 1 or 2."""
    x1, y1, x2, y2 = location.box
    x, y = location.point
    crop = foreground(pixels[y1:y2, x1:x2], background)
    in_box = int(largest_region(crop).sum() >= MIN_AREA)
    sampled = np.abs(pixels[::4, ::4] - pixels[y, x]).max(axis=2) <= TOLERANCE
    # Only a region that covers most of the image is refused; a quick sample excludes most points.
    if float(sampled.mean()) < MAX_OBJECT_SHARE * 0.9:
        return in_box + 1
    region = grow_region(pixels, x, y)
    return in_box + int(region.sum() <= MAX_OBJECT_SHARE * region.size)
