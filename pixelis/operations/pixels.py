"""Pixel functions shared by operations: drawing shapes, background, regions, colour names."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "green": (30, 150, 60),
    "blue": (35, 70, 215),
    "yellow": (240, 205, 20),
    "purple": (150, 45, 175),
    "orange": (245, 130, 20),
}
# Further colours of photographs; drawn shapes never have them.
COLOURS: dict[str, tuple[int, int, int]] = PALETTE | {
    "black": (20, 20, 20),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "brown": (115, 70, 35),
    "pink": (250, 160, 190),
}
NEUTRAL = {name: COLOURS[name] for name in ("black", "gray", "white")}
# A colour whose channels differ by less is neutral.
MIN_CHROMA = 25
SHAPES = ("circle", "square", "triangle", "diamond", "cross")

# In grey levels. Drawn backgrounds differ from their mean by a few, objects by many more.
TOLERANCE = 60
# A region that covers a larger share of the image is background, not an object.
MAX_OBJECT_SHARE = 0.5


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, cx: float, cy: float, radius: float, fill: Any
) -> None:
    """Draw a filled shape of half-width `radius` (pixels) centred on (cx, cy).

    Raises:
        ValueError: when `shape` is not one of `SHAPES`.
    """
    left, top, right, bottom = cx - radius, cy - radius, cx + radius, cy + radius
    arm = radius * 0.38
    if shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=fill)
    elif shape == "triangle":
        draw.polygon([(cx, top), (right, bottom), (left, bottom)], fill=fill)
    elif shape == "diamond":
        draw.polygon([(cx, top), (right, cy), (cx, bottom), (left, cy)], fill=fill)
    elif shape == "cross":
        draw.rectangle((cx - arm, top, cx + arm, bottom), fill=fill)
        draw.rectangle((left, cy - arm, right, cy + arm), fill=fill)
    else:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")


def pixel_array(image: Image.Image) -> npt.NDArray[np.int16]:
    """Return the image as an int16 array of shape (height, width, 3), safe to subtract."""
    return np.asarray(image.convert("RGB"), dtype=np.int16)


def background_colour(pixels: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return the median colour of the outermost rows and columns, shape (3,)."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    median: npt.NDArray[np.int16] = np.median(edge, axis=0).astype(np.int16)
    return median


def foreground(pixels: npt.NDArray[np.int16], background: npt.NDArray[np.int16]) -> Mask:
    """Return the mask of pixels that differ from the background by more than the tolerance."""
    mask: Mask = channel_distance(pixels, background) > TOLERANCE
    return mask


def channel_distance(
    pixels: npt.NDArray[np.int16], other: npt.NDArray[np.int16]
) -> npt.NDArray[np.int16]:
    """Return each pixel's largest difference over the three channels."""
    # Channel by channel: `max` over an axis of three needs five times the time and the memory.
    largest: npt.NDArray[np.int16] = np.abs(pixels[..., 0] - other[..., 0])
    for channel in (1, 2):
        difference = np.abs(pixels[..., channel] - other[..., channel])
        np.maximum(largest, difference, out=largest)
    return largest


def grow_region(pixels: npt.NDArray[np.int16], x: int, y: int) -> Mask:
    """Return the 4-connected region around (x, y) of pixels within TOLERANCE of its colour."""
    similar = channel_distance(pixels, pixels[y, x]) <= TOLERANCE
    labels, _ = ndimage.label(similar)
    region: Mask = labels == labels[y, x]
    return region


def largest_region(mask: Mask) -> Mask:
    """Return the largest 4-connected region of a mask (all False where the mask is empty)."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    region: Mask = labels == largest
    return region


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """Return the box of a non-empty mask, x2 and y2 exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def colour_name(rgb: npt.NDArray[Any]) -> str:
    """Return the name of the nearest of `COLOURS` to a colour of 0 to 255 (Euclidean, in RGB).

    A colour whose channels hardly differ is black, gray or white, even if a pale one is nearer.
    """
    names = COLOURS if np.ptp(rgb) >= MIN_CHROMA else NEUTRAL
    return min(names, key=lambda name: float(np.sum((np.asarray(COLOURS[name]) - rgb) ** 2)))


_NORMAL_SIZE = 24


def normalise(mask: Mask) -> Mask:
    """Stretch the bounding box of a mask to a fixed square, to compare outlines."""
    x1, y1, x2, y2 = bounding_box(mask)
    cut = Image.fromarray(mask[y1:y2, x1:x2].astype(np.uint8) * 255)
    stretched = cut.resize((_NORMAL_SIZE, _NORMAL_SIZE), Image.Resampling.BILINEAR)
    result: Mask = np.asarray(stretched) > 127
    return result


def mask_iou(a: Mask, b: Mask) -> float:
    """Return the intersection over union of two masks of one shape, in [0, 1]."""
    union = int(np.logical_or(a, b).sum())
    return int(np.logical_and(a, b).sum()) / union if union else 0.0


@lru_cache
def _references() -> dict[str, Mask]:
    references = {}
    for shape in SHAPES:
        canvas = Image.new("L", (96, 96), 0)
        draw_shape(ImageDraw.Draw(canvas), shape, 48, 48, 40, 255)
        references[shape] = normalise(np.asarray(canvas) > 127)
    return references


def shape_name(mask: Mask) -> str:
    """Return the shape whose outline has the largest IoU with that of the mask."""
    outline = normalise(mask)
    return max(SHAPES, key=lambda shape: mask_iou(outline, _references()[shape]))
