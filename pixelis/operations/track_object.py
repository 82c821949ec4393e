"""TRACK_OBJECT: find the object of a box in later images, by template matching.

The first frame's crop is compared with every position of each later frame; the one with the least
weighted sum of squared differences over the three channels wins (Lewis, "Fast Normalized
Cross-Correlation", 1995: products by FFT). Pixels that differ from the box's own background weigh
more, so that clutter behind an object counts less than its colour. The object may move, but not
turn or change its size. If it has disappeared, a similar one (a circle instead of a square) may be
tracked.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft, ndimage

from pixelis.operations.base import (
    BBOX_SCHEMA,
    NothingFound,
    Observation,
    Operation,
    OperationError,
    check_bbox,
    fits_schema,
)
from pixelis.operations.pixels import (
    TOLERANCE,
    background_colour,
    channel_distance,
    foreground,
    pixel_array,
)

Pixels = npt.NDArray[np.int16]

OBJECT_WEIGHT = 8
# An object is found where at least this share of its pixels, in the template or in its match,
# differs by at most TOLERANCE grey levels in every channel.
MIN_AGREEMENT = 0.8
# A box with fewer pixels off its background has no object in it.
MIN_AREA = 12
# Larger frames are searched at an integer fraction of their size, then around the best position.
MAX_SEARCHED_PIXELS = 1_500_000
MIN_TEMPLATE_SIDE = 16
MAX_COMPARED_PIXELS = 20_000


def _weights(template: Pixels) -> npt.NDArray[np.float64]:
    on_object = foreground(template, background_colour(template))
    return np.where(on_object, float(OBJECT_WEIGHT), 1.0)


def _nearest_minimum(costs: npt.NDArray[np.float64], x: float, y: float) -> tuple[int, int]:
    """Return the position (x, y) of the least cost; among equals the nearest to the given one."""
    # The costs are integers, except for rounding by the FFT.
    rows, columns = np.nonzero(np.rint(costs) == np.rint(costs.min()))
    best = int(np.argmin((columns - x) ** 2 + (rows - y) ** 2))
    return int(columns[best]), int(rows[best])


def _search(frame: Pixels, template: Pixels, x: float, y: float) -> tuple[int, int]:
    """Return the best position of the template in the whole frame.

    Large frames are searched in bands, since the search takes 150 bytes a pixel.
    """
    axis = 0 if template.shape[0] <= template.shape[1] else 1
    length = template.shape[axis]
    num_positions = frame.shape[axis] - length + 1
    step = max(length, MAX_SEARCHED_PIXELS // frame.shape[1 - axis])
    bands = [
        _costs(
            frame.take(range(start, min(start + step, num_positions) + length - 1), axis), template
        )
        for start in range(0, num_positions, step)
    ]
    return _nearest_minimum(np.concatenate(bands, axis), x, y)


def _costs(frame: Pixels, template: Pixels) -> npt.NDArray[np.float64]:
    """Return the weighted sum of squared differences at every position of the template."""
    weights = _weights(template)
    # Centred on middle grey, which keeps sums and rounding errors small.
    pixels = np.moveaxis(frame, 2, 0).astype(np.float64) - 128
    model = np.moveaxis(template, 2, 0).astype(np.float64) - 128
    # sum w (t - f)^2 = sum w t^2 - 2 sum (w t) f + sum w f^2, the latter two for all positions at
    # once. Positions that wrap around are cut off.
    planes = np.stack([*pixels, (pixels**2).sum(axis=0)])
    kernels = np.stack([*(-2 * weights * model), weights])
    size = [fft.next_fast_len(length, real=True) for length in frame.shape[:2]]
    spectrum = fft.rfft2(planes, size) * fft.rfft2(kernels, size).conj()
    products = fft.irfft2(spectrum.sum(axis=0), size)
    rows, columns = (a - b + 1 for a, b in zip(frame.shape[:2], template.shape[:2], strict=True))
    costs: npt.NDArray[np.float64] = products[:rows, :columns] + (weights * model**2).sum()
    return costs


def _refine(frame: Pixels, template: Pixels, x: int, y: int, reach: int) -> tuple[int, int]:
    """Return the best position within `reach` pixels of (x, y), compared on a sparse grid."""
    height, width = template.shape[:2]
    step = max(1, int((height * width / MAX_COMPARED_PIXELS) ** 0.5))
    model, weights = template[::step, ::step].astype(np.int64), _weights(template)[::step, ::step]
    left, top = max(0, x - reach), max(0, y - reach)
    right = min(frame.shape[1] - width, x + reach)
    bottom = min(frame.shape[0] - height, y + reach)
    costs = np.empty((bottom - top + 1, right - left + 1))
    for row, column in np.ndindex(costs.shape):
        y1, x1 = top + row, left + column
        patch = frame[y1 : y1 + height : step, x1 : x1 + width : step]
        costs[row, column] = (weights * ((patch - model) ** 2).sum(axis=2)).sum()
    dx, dy = _nearest_minimum(costs, x - left, y - top)
    return left + dx, top + dy


def _locate(frame: Image.Image, crop: Image.Image, x: int, y: int) -> tuple[int, int]:
    pixels, template = pixel_array(frame), pixel_array(crop)
    area = frame.width * frame.height
    factor = int(np.ceil((area / MAX_SEARCHED_PIXELS) ** 0.5))
    factor = min(factor, max(1, min(crop.size) // MIN_TEMPLATE_SIDE))
    if factor == 1:
        return _search(pixels, template, x, y)
    small = [pixel_array(image.convert("RGB").reduce(factor)) for image in (frame, crop)]
    near_x, near_y = _search(small[0], small[1], x / factor, y / factor)
    near_x = min(near_x * factor, frame.width - crop.width)
    near_y = min(near_y * factor, frame.height - crop.height)
    return _refine(pixels, template, near_x, near_y, factor)


def agreement(template: Pixels, match: Pixels) -> float:
    """Return the share of the object's pixels that agree in two crops of one shape, in [0, 1].

    The object's pixels are those off the template's background, in the template or in a region of
    the match that meets them; all pixels if there are none.
    """
    background = background_colour(template)
    expected, seen = foreground(template, background), foreground(match, background)
    # A region that does not meet the object is a neighbour that reaches into the box.
    counted = expected | ndimage.binary_propagation(expected & seen, mask=seen)
    same = channel_distance(template, match) <= TOLERANCE
    return float(same[counted].mean() if counted.any() else same.mean())


FRAMES_SCHEMA = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1},
    "minItems": 2,
    "description": "ascending numbers of images, from 1; the box is in the first of them",
}


def _check_frames(value: Any, count: int) -> list[int]:
    if count < 2:
        raise OperationError(f"TRACK_OBJECT needs at least 2 images, got {count}")
    fits = fits_schema(value, FRAMES_SCHEMA)
    if not fits or value[-1] > count or any(a >= b for a, b in pairwise(value)):
        raise OperationError(
            f"frames must be at least 2 strictly ascending integers in [1, {count}], "
            f"got {value!r:.60}"
        )
    return list(value)


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    frames = _check_frames(arguments["frames"], len(images))
    first = images[frames[0] - 1]
    x1, y1, x2, y2 = check_bbox(arguments["bbox"], first.size)
    crop, (width, height) = first.convert("RGB").crop((x1, y1, x2, y2)), (x2 - x1, y2 - y1)
    boxes = [[x1, y1, x2, y2]]
    if foreground(pixel_array(crop), background_colour(pixel_array(crop))).sum() < MIN_AREA:
        raise NothingFound(f"no object in {boxes[0]} of frame {frames[0]}")
    for number in frames[1:]:
        frame = images[number - 1].convert("RGB")
        if frame.width < width or frame.height < height:
            raise OperationError(
                f"bbox must fit into every frame: it is {width} x {height}, "
                f"frame {number} is {frame.width} x {frame.height}"
            )
        x, y = boxes[-1][:2]
        # An unchanged crop is the best match; the search would find the same.
        if frame.crop((x, y, x + width, y + height)).tobytes() != crop.tobytes():
            x, y = _locate(frame, crop, x, y)
        match = frame.crop((x, y, x + width, y + height))
        if agreement(pixel_array(crop), pixel_array(match)) < MIN_AGREEMENT:
            raise NothingFound(f"the object of {boxes[0]} is not found in frame {number}")
        boxes.append([x, y, x + width, y + height])
    return Observation({"boxes": boxes})


TRACK_OBJECT = Operation(
    name="TRACK_OBJECT",
    description="Follow the object of a box through later images: its box in each frame.",
    parameters={
        "frames": FRAMES_SCHEMA,
        "bbox": {**BBOX_SCHEMA, "description": "[x1, y1, x2, y2] in pixels of the first frame"},
    },
    run=_run,
    sophistication=3,
)
