"""The reader of photographs and scans: RapidOCR, where the extra `ocr` is installed.

Its models (PP-OCRv6: text detection and recognition) come inside its package, so no network is
needed. It runs in one thread on the CPU, so that the same box gives the same text. Text must be
upright.

It never reads empty boxes, drawn shapes and drawn text, so that their results are the same with and
without the extra (see `holds_drawing_only`). It reads handwritten digits if their own reader finds
none, as in a box with two digits or half of one.
"""

import importlib.util
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelis.operations.pixels import PALETTE, TOLERANCE, background_colour, foreground
from pixelis.operations.readers.drawn import INK

HINT = "to read photographs, install the extra: pip install 'pixelis[ocr]'"
PARAMETERS: dict[str, Any] = {
    "Global.log_level": "critical",
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    # The classifier of direction turns upright lines of small print upside down.
    "Global.use_cls": False,
    # Scale down to this side but not up to one: the default makes a short line seven times slower.
    "Det.limit_type": "max",
    "Det.limit_side_len": 1280,
}
# In pixels: boxes up to this side are read twice as large, which small print needs.
SMALL_SIDE = 640


def installed() -> bool:
    """Return whether the extra `ocr` is installed."""
    return all(importlib.util.find_spec(name) for name in ("rapidocr", "onnxruntime"))


def holds_drawing_only(pixels: npt.NDArray[np.int16], box: tuple[int, int, int, int]) -> bool:
    """Return whether a box holds only background, drawn shapes and drawn text.

    That means: its pixels differ from each other by at most TOLERANCE in every channel, or each
    pixel that is not background has exactly a colour of the palette or of drawn text.
    """
    x1, y1, x2, y2 = box
    crop = pixels[y1:y2, x1:x2]
    if np.ptp(crop.reshape(-1, 3), axis=0).max() <= TOLERANCE:
        return True
    unknown = foreground(crop, background_colour(pixels))
    for colour in (INK, *PALETTE.values()):
        unknown &= (crop != colour).any(axis=2)
    return not unknown.any()


@lru_cache
def _engine() -> Any:
    from rapidocr import RapidOCR  # optional, and slow to load

    return RapidOCR(params=PARAMETERS)


def read_photograph(pixels: npt.NDArray[np.int16], box: tuple[int, int, int, int]) -> str | None:
    """Return the lines of text in a box, in reading order, joined by spaces; None without text."""
    if holds_drawing_only(pixels, box) or not installed():
        return None
    x1, y1, x2, y2 = box
    crop = Image.fromarray(pixels[y1:y2, x1:x2].astype(np.uint8))
    if max(crop.size) <= SMALL_SIDE:
        crop = crop.resize((2 * crop.width, 2 * crop.height), Image.Resampling.BICUBIC)
    # RapidOCR takes arrays as OpenCV does: blue, green, red.
    lines = _engine()(np.ascontiguousarray(np.asarray(crop)[:, :, ::-1]))
    return " ".join(lines.txts or ()).strip() or None
