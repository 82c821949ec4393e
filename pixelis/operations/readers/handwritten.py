"""Handwritten digits of real people: draw them into scenes, and read them.

The digits are those of scikit-learn's `load_digits` (8 x 8 pixels, levels 0 to 16; Alpaydin and
Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998). The
first 900 are the reader's references; scenes draw only the others, `HELD_OUT`, so that reading
one is recognition, not recall. The reader is a nearest-neighbour classifier for one dark digit of
the drawn size on a light, grey background: right for 96 to 97 % of the held-out digits. It reads no
letters and no numbers of several digits.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelis.operations.pixels import Mask, background_colour, bounding_box, foreground
from pixelis.operations.readers.drawn import INK

HELD_OUT = range(900, 1797)
SIDE, ENLARGEMENT, LEVELS = 8, 3, 16
DRAWN_SIDE = SIDE * ENLARGEMENT

# In grey levels: ink is grey, and the background is light.
MAX_CHROMA = 30
MIN_BACKGROUND = 150
# In sixteenths of the ink's contrast. Pale clutter and grain stay below the floor, or little above.
FLOOR = 3.0
INK_FROM = 4.0
# In pixels: limits of the ink of every digit of the set.
MIN_HEIGHT, MAX_HEIGHT = 15, DRAWN_SIDE + 2
# Euclidean distance over the 8 x 8 levels; no held-out digit is as far from its references.
MAX_DISTANCE = 28.0


@lru_cache
def _digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # slow to import, and few calls need it

    digits: Any = load_digits()
    return digits.images, digits.target


def digit_label(index: int) -> str:
    """Return the digit that the image of an index shows, `0` to `9`."""
    return str(int(_digits()[1][index]))


def _stamp(index: int) -> Image.Image:
    levels = (_digits()[0][index] * (255 / LEVELS)).round().astype(np.uint8)
    return Image.fromarray(levels).resize((DRAWN_SIDE, DRAWN_SIDE), Image.Resampling.BILINEAR)


def draw_digit(image: Image.Image, index: int, x: int, y: int) -> None:
    """Draw a held-out digit, 24 x 24 pixels, with its top left corner at (x, y) of an RGB image.

    Raises:
        ValueError: when `index` is not in `HELD_OUT`: the others are the reader's references.
    """
    if index not in HELD_OUT:
        raise ValueError(
            f"index must be in [{HELD_OUT.start}, {HELD_OUT.stop - 1}] (HELD_OUT), got {index!r}"
        )
    image.paste(INK, (x, y), _stamp(index))


def _levels(grey: npt.NDArray[Any], background: float) -> npt.NDArray[np.float64]:
    """Return the darkness of pixels in levels of 0 to 16, without clutter and noise."""
    darkness = (background - grey) / (background - INK[0]) * LEVELS
    lifted: npt.NDArray[np.float64] = np.clip((darkness - FLOOR) / (LEVELS - FLOOR), 0, 1) * LEVELS
    return lifted


def _features(levels: npt.NDArray[np.float64], ink: Mask) -> npt.NDArray[np.float64] | None:
    """Return the 8 x 8 levels, flat, of the square around the ink; None if its size is wrong."""
    if not ink.any():
        return None
    left, top, right, bottom = bounding_box(ink)
    if not MIN_HEIGHT <= bottom - top <= MAX_HEIGHT or right - left > MAX_HEIGHT:
        return None
    x, y = (left + right) // 2, (top + bottom) // 2
    half = DRAWN_SIDE // 2
    square = np.pad(levels, half)[y : y + DRAWN_SIDE, x : x + DRAWN_SIDE]
    cells = square.reshape(SIDE, ENLARGEMENT, SIDE, ENLARGEMENT)
    features: npt.NDArray[np.float64] = cells.mean(axis=(1, 3)).ravel()
    return features


@lru_cache
def _references() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return features, shape (references, 64), and labels of the digits that are not held out."""
    features, labels = [], []
    for index in range(HELD_OUT.start):
        canvas = Image.new("L", (DRAWN_SIDE, DRAWN_SIDE), 235)
        canvas.paste(INK[0], (0, 0), _stamp(index))
        levels = _levels(np.asarray(canvas, dtype=np.float64), 235)
        vector = _features(levels, levels > INK_FROM)
        if vector is not None:
            features.append(vector)
            labels.append(int(_digits()[1][index]))
    return np.stack(features), np.array(labels)


def read_digit(pixels: npt.NDArray[np.int16], box: tuple[int, int, int, int]) -> str | None:
    """Return the one handwritten digit in a box, or None."""
    x1, y1, x2, y2 = box
    crop = pixels[y1:y2, x1:x2]
    colour = background_colour(crop)
    background = float(colour.max())
    if background < MIN_BACKGROUND:
        return None
    marks = crop[foreground(crop, colour)]
    if not len(marks) or np.ptp(marks, axis=1).max() > MAX_CHROMA:
        return None
    levels = _levels(crop.max(axis=2), background)
    features = _features(levels, levels > INK_FROM)
    if features is None:
        return None
    references, labels = _references()
    distances = ((references - features) ** 2).sum(axis=1)
    nearest = int(np.argmin(distances))
    return str(labels[nearest]) if distances[nearest] <= MAX_DISTANCE**2 else None
