"""An annotated photograph as tasks see it: where things are, their colours, their outlines."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from pixelis.data_prep.annotated_image import AnnotatedImage, Box, Instance, Location, Point
from pixelis.data_prep.sources.coco_records import Annotation, box_overlap, mask_of
from pixelis.operations.get_properties import MIN_AREA
from pixelis.operations.pixels import (
    COLOURS,
    MAX_OBJECT_SHARE,
    TOLERANCE,
    Mask,
    background_colour,
    bounding_box,
    colour_name,
    foreground,
    grow_region,
    largest_region,
    overlap,
    pixel_array,
)

Pixels = npt.NDArray[np.int16]

TEXT = "text"
# Annotators name only what is in their list of categories: of all things together, and so of all
# things of a colour, not every one is known. No category has this name (`check_name`).
ANY_KIND = ""
MIN_COLOUR_SHARE = 0.6
# Light gray is nearer to pink than to gray among the names; without colour only these are true.
COLOURLESS = ("black", "gray", "white")
MIN_CHROMA = 25
MIN_OUTLINE_OVERLAP = 0.75
SMALL_SHARE = 0.02
MIN_DISTANCE = 14.0
MIN_DISTANCE_SHARE = 0.05
NUM_FREE = 6
FREE_TRIES = 120
MIN_FREE_SIDE = 12
# More pixels say no more about a colour.
SAMPLED = 4096
# Deep inside the mask; there the point with the most usual colour is looked for.
CORE = 0.6


def picture_of(
    image: Image.Image,
    marks: Sequence[tuple[str, Annotation]],
    *,
    draw: Callable[[], tuple[Image.Image, ...]],
    uncounted: Iterable[str],
    taken: Iterable[Box],
    origin: tuple[tuple[str, Any], ...],
) -> AnnotatedImage:
    """Make a picture of an image and what is marked in it.

    Args:
        image: RGB.
        marks: a category's name and an annotation of it, for each.
        draw: gives the image again.
        uncounted: names of categories of which not every thing is marked.
        taken: boxes, besides the marks', in which something stands.
        origin: for provenance.
    """
    pixels = pixel_array(image)
    side = max(image.size)
    things = tuple(_thing(name, annotation, pixels) for name, annotation in marks)
    boxes = [*taken, *(thing.extent for thing in things)]
    return AnnotatedImage(
        instances=things,
        draw=draw,
        free=_free(pixels, boxes, random.Random(repr(origin))),
        axes=("Center x", "Center y"),
        min_distance=max(MIN_DISTANCE, MIN_DISTANCE_SHARE * side),
        uncounted=frozenset((*uncounted, ANY_KIND)),
        origin=origin,
    )


def _thing(name: str, annotation: Annotation, pixels: Pixels) -> Instance:
    height, width = pixels.shape[:2]
    box = annotation.box
    mask = mask_of(annotation, (width, height))
    inside = pixels[mask]
    median = np.median(inside[:: max(1, len(inside) // SAMPLED)], axis=0)
    point = _inner_point(mask, pixels, median)
    x1, y1, x2, y2 = box
    name = TEXT if annotation.text else name
    return Instance(
        name=name,
        kind=name,
        location=Location(str(list(box)), box, point),
        extent=box,
        area=int(mask.sum()),
        position=((x1 + x2) // 2, (y1 + y2) // 2),
        colour=clear_colour(inside),
        small=(x2 - x1) * (y2 - y1) < SMALL_SHARE * width * height,
        text=annotation.text,
        outlined=_is_outlined(pixels, mask, inside, point),
    )


def clear_colour(pixels: Pixels) -> str:
    """The name of the median of colours (shape (n, 3)) where most of them have it; else empty."""
    sampled = pixels[:: max(1, len(pixels) // SAMPLED)].astype(np.int32)
    median = np.median(sampled, axis=0)
    name = colour_name(median)
    if np.ptp(median) < MIN_CHROMA and name not in COLOURLESS:
        return ""
    named = np.array(list(COLOURS.values()), dtype=np.int32)
    distances = ((sampled[:, None] - named[None]) ** 2).sum(axis=2)
    share = float((distances.argmin(axis=1) == list(COLOURS).index(name)).mean())
    return name if share >= MIN_COLOUR_SHARE else ""


def _inner_point(mask: Mask, pixels: Pixels, median: npt.NDArray[np.float64]) -> Point:
    """A pixel deep inside the mask that has the colour of most of it, near the middle."""
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    depth = ndimage.distance_transform_cdt(np.pad(mask[rows, columns], 1), "chessboard")
    y, x = np.nonzero(depth[1:-1, 1:-1] >= max(1, CORE * depth.max()))
    y, x = y + rows.start, x + columns.start
    unlike = np.abs(pixels[y, x] - median).max(axis=1) // 8
    off_centre = (y - y.mean()) ** 2 + (x - x.mean()) ** 2
    best = np.lexsort((off_centre, unlike))[0]
    return int(x[best]), int(y[best])


def _is_outlined(pixels: Pixels, mask: Mask, inside: Pixels, point: Point) -> bool:
    """Whether region growing gives the mask: asked first of the mask alone, which is cheap."""
    x, y = point
    alike = np.abs(inside - pixels[y, x]).max(axis=1) <= TOLERANCE
    if float(alike.mean()) < MIN_OUTLINE_OVERLAP:
        return False
    region = grow_region(pixels, x, y)
    too_large = region.sum() > MAX_OBJECT_SHARE * region.size
    # The boxes too: a thread of the region that leaves the mask moves the centre that is found.
    return (
        not too_large
        and overlap(region, mask) >= MIN_OUTLINE_OVERLAP
        and box_overlap(bounding_box(region), bounding_box(mask)) >= MIN_OUTLINE_OVERLAP
    )


def _free(pixels: Pixels, boxes: Sequence[Box], rng: random.Random) -> tuple[Location, ...]:
    """Boxes in which nothing is marked; first those in which the operations find nothing either."""
    height, width = pixels.shape[:2]
    background = background_colour(pixels)
    found: list[tuple[int, Location]] = []
    for attempt in range(FREE_TRIES if boxes else 0):
        like = rng.choice(boxes)
        # What is large leaves no room of its size; in a full image ever smaller boxes are tried.
        most = 5 + 10 * attempt // FREE_TRIES
        across, down = min(like[2] - like[0], width // most), min(like[3] - like[1], height // most)
        x = rng.randrange(max(1, width - across + 1))
        y = rng.randrange(max(1, height - down + 1))
        box = (x, y, x + across, y + down)
        apart = all(
            box[2] <= b[0] or b[2] <= box[0] or box[3] <= b[1] or b[3] <= box[1] for b in boxes
        )
        if not apart or min(across, down) < MIN_FREE_SIDE:
            continue
        if len(found) == 2 * NUM_FREE:
            break
        location = Location(str(list(box)), box, (x + across // 2, y + down // 2))
        found.append((_noise(pixels, background, location), location))
    # Stable, so that among equals the order drawn stays.
    found.sort(key=lambda pair: pair[0])
    return tuple(dict.fromkeys(location for _, location in found[:NUM_FREE]))


def _noise(pixels: Pixels, background: Pixels, location: Location) -> int:
    """How many operations find something at a location."""
    x1, y1, x2, y2 = location.box
    x, y = location.point
    crop = foreground(pixels[y1:y2, x1:x2], background)
    shown = int(largest_region(crop).sum() >= MIN_AREA)
    sampled = np.abs(pixels[::4, ::4] - pixels[y, x]).max(axis=2) <= TOLERANCE
    # Only a region of most of the image is refused as one; most points are ruled out by a sample.
    if float(sampled.mean()) < MAX_OBJECT_SHARE * 0.9:
        return shown + 1
    region = grow_region(pixels, x, y)
    return shown + int(region.sum() <= MAX_OBJECT_SHARE * region.size)
