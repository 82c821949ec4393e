"""Masks as JSON: COCO's uncompressed run-length encoding.

`{"size": [height, width], "counts": [...]}`: the lengths of alternating runs of 0 and 1 over the
columns from left to right, each from top to bottom; the first run is of zeros and may be empty.
Source: `pycocotools.mask`, https://github.com/cocodataset/cocoapi.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pixelis.operations.base import OperationError
from pixelis.operations.pixels import Mask

MASK_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "size": {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 2,
            "maxItems": 2,
            "description": "[height, width] of the original image",
        },
        "counts": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "description": "run lengths down the columns, zeros first",
        },
    },
    "required": ["size", "counts"],
    "additionalProperties": False,
    "description": "COCO uncompressed run-length encoding over the whole original image",
}


def encode_mask(mask: Mask) -> dict[str, list[int]]:
    """Encode a mask of shape (height, width) as runs."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    runs = np.diff(changes, prepend=0, append=flat.size)
    return {"size": [int(side) for side in mask.shape], "counts": [int(run) for run in runs]}


def decode_mask(value: Any, size: tuple[int, int]) -> Mask:
    """Decode a mask to shape (height, width), or raise OperationError with the rule.

    Args:
        value: the argument of the call.
        size: (width, height) of the image that it must cover.
    """
    if not isinstance(value, Mapping) or set(value) != {"size", "counts"}:
        got = ", ".join(map(str, value))[:40] if isinstance(value, Mapping) else f"{value!r:.40}"
        raise OperationError(f"mask must be an object of size and counts, got {got or 'none'}")
    width, height = size
    sides = value["size"]
    valid = isinstance(sides, list | tuple) and all(type(side) is int for side in sides)
    if not valid or list(sides) != [height, width]:
        raise OperationError(
            f"mask size must be [height, width] = {[height, width]}, got {sides!r:.40}"
        )
    counts, longest = value["counts"], height * width + 1
    if not isinstance(counts, list | tuple) or not 1 <= len(counts) <= longest:
        got = f"{len(counts)}" if isinstance(counts, list | tuple) else f"{counts!r:.40}"
        raise OperationError(f"mask counts must be a list of 1 to {longest} runs, got {got}")
    wrong = next((run for run in counts if type(run) is not int or run < 0), None)
    if wrong is not None or None in counts:
        raise OperationError(f"mask counts must be integers of at least 0, got {wrong!r:.40}")
    total = sum(counts)
    if total != height * width:
        # Python writes no integer of more than 4,300 digits.
        got = str(total) if total < 10**40 else "10^40 or more"
        raise OperationError(
            f"mask counts must sum to height x width = {height * width}, got {got}"
        )
    values = np.arange(len(counts)) % 2 == 1
    mask: Mask = np.repeat(values, counts).reshape((height, width), order="F")
    return mask
