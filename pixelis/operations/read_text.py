"""READ_TEXT: the characters in a box.

This reader knows the font that the drawn scenes use and matches glyph by glyph; it is exact there
and makes no claim on photographs.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelis.operations.base import (
    BBOX_SCHEMA,
    Observation,
    Operation,
    OperationError,
    check_bbox,
)
from pixelis.operations.pixels import Mask, normalise, overlap, pixel_array

# Characters that stay apart at this size: no 0/O/Q, 1/I, 2/Z, 5/S, 8/B, G/6.
ALPHABET = "ACDEFHJKLMNPRTUVWXY3479"
FONT_SIZE = 15
INK = (20, 20, 20)
# Ink is dark in every channel; no palette colour is.
INK_LEVEL = 110
MIN_MATCH = 0.55
GAP = 2


@lru_cache
def glyph(character: str) -> Mask:
    """The character's ink as a tight mask."""
    canvas = Image.new("L", (4 * FONT_SIZE, 4 * FONT_SIZE), 0)
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(canvas).text((FONT_SIZE, FONT_SIZE), character, fill=255, font=font)
    box = canvas.getbbox()
    assert box is not None, f"no ink for {character!r}"
    tight: Mask = np.asarray(canvas.crop(box)) > 110
    return tight


def text_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of `text` as `draw_text` draws it."""
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


def _match(mask: Mask) -> str | None:
    outline = normalise(mask)
    scored = [(overlap(outline, normalise(glyph(c))), c) for c in ALPHABET]
    score, character = max(scored)
    return character if score >= MIN_MATCH else None


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    image = images[0]
    x1, y1, x2, y2 = check_bbox(arguments["bbox"], image.size)
    ink: Mask = pixel_array(image)[y1:y2, x1:x2].max(axis=2) < INK_LEVEL
    inked = np.flatnonzero(ink.any(axis=0))
    if not len(inked):
        raise OperationError(f"no text in {[x1, y1, x2, y2]}")
    characters = []
    for columns in np.split(inked, np.flatnonzero(np.diff(inked) > 1) + 1):
        character = _match(ink[:, columns[0] : columns[-1] + 1])
        if character is not None:
            characters.append(character)
    if not characters:
        raise OperationError(f"no text in {[x1, y1, x2, y2]}")
    return Observation({"text": "".join(characters)})


READ_TEXT = Operation(
    name="READ_TEXT",
    description="Read the text in a box.",
    parameters={"bbox": BBOX_SCHEMA},
    run=_run,
    sophistication=1,
)
