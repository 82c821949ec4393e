"""Draw and read texts in one font of one size.

The reader compares glyph by glyph and returns a text only if every group of ink columns is a
character of its alphabet; in photographs it reads nothing.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pixelis.operations.pixels import Mask, bounding_box, mask_iou, normalise

# Characters that can be distinguished at this size: no 0/O/Q, 1/I, 2/Z, 5/S, 8/B, G/6.
ALPHABET = "ACDEFHJKLMNPRTUVWXY3479"
FONT_SIZE = 15
INK = (20, 20, 20)
# Ink is dark in every channel; no palette colour is.
INK_LEVEL = 110
MIN_MATCH = 0.8
# In pixels: anything larger or smaller is not of this font.
MAX_SIZE_DIFFERENCE = 1
GAP = 2


@lru_cache
def glyph(character: str) -> Mask:
    """Return the character's ink as a tight mask."""
    canvas = Image.new("L", (4 * FONT_SIZE, 4 * FONT_SIZE), 0)
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(canvas).text((FONT_SIZE, FONT_SIZE), character, fill=255, font=font)
    box = canvas.getbbox()
    assert box is not None, f"no ink for {character!r}"
    tight: Mask = np.asarray(canvas.crop(box)) > INK_LEVEL
    return tight


def text_size(text: str) -> tuple[int, int]:
    """Return the width and height in pixels of `text` as `draw_text` draws it."""
    glyphs = [glyph(character) for character in text]
    width = sum(g.shape[1] for g in glyphs) + GAP * (len(glyphs) - 1)
    return width, max(g.shape[0] for g in glyphs)


def draw_text(image: Image.Image, text: str, x: int, y: int) -> None:
    """Draw `text` in ink with its top left corner at (x, y), a clear gap between characters."""
    for character in text:
        mask = glyph(character)
        stamp = Image.fromarray(mask.astype(np.uint8) * 255)
        image.paste(INK, (x, y), stamp)
        x += mask.shape[1] + GAP


@lru_cache
def _outlines() -> dict[str, tuple[Mask, tuple[int, int]]]:
    """Return character -> its normalised outline, and the (width, height) of its ink."""
    outlines = {}
    for character in ALPHABET:
        left, top, right, bottom = bounding_box(glyph(character))
        outlines[character] = normalise(glyph(character)), (right - left, bottom - top)
    return outlines


def _match(mask: Mask) -> str | None:
    left, top, right, bottom = bounding_box(mask)
    near = {
        character: outline
        for character, (outline, (width, height)) in _outlines().items()
        if abs(right - left - width) <= MAX_SIZE_DIFFERENCE
        and abs(bottom - top - height) <= MAX_SIZE_DIFFERENCE
    }
    if not near:
        return None
    outline = normalise(mask)
    score, character = max((mask_iou(outline, near[c]), c) for c in near)
    return character if score >= MIN_MATCH else None


def read_drawn(pixels: npt.NDArray[np.int16], box: tuple[int, int, int, int]) -> str | None:
    """Return the text in a box if each group of ink columns is a drawn character, else None."""
    x1, y1, x2, y2 = box
    ink: Mask = pixels[y1:y2, x1:x2].max(axis=2) < INK_LEVEL
    inked = np.flatnonzero(ink.any(axis=0))
    if not len(inked):
        return None
    characters = []
    for columns in np.split(inked, np.flatnonzero(np.diff(inked) > 1) + 1):
        character = _match(ink[:, columns[0] : columns[-1] + 1])
        if character is None:
            return None
        characters.append(character)
    return "".join(characters)
