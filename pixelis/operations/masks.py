"""Masks as JSON: COCO's uncompressed run-length encoding.

`{"size": [height, width], "counts": [...]}`: the lengths of alternating runs of 0 and 1 over the
columns from left to right, each from top to bottom; the first run is of zeros and may be empty.
Source: `pycocotools.mask`, https://github.com/cocodataset/cocoapi.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pixelis.operations.base import OperationError, fits_schema
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
    """Decode a mask over an image of `size` (width, height), to shape (height, width).

    Raises:
        OperationError: when it is none.
    """
    width, height = size
    if not fits_schema(value, MASK_SCHEMA):
        raise OperationError(
            "mask must be an object of size, [height, width], and counts, integers of at least 0, "
            f"got {value!r:.60}"
        )
    sides, counts, area = list(value["size"]), value["counts"], height * width
    if sides != [height, width] or len(counts) > area + 1:
        raise OperationError(
            f"mask must have size [height, width] = {[height, width]} and at most {area + 1} "
            f"counts, got {sides!r:.40} and {len(counts)}"
        )
    if sum(counts) != area:
        raise OperationError(f"mask must have counts that sum to {area}, got others")
    values = np.arange(len(counts)) % 2 == 1
    mask: Mask = np.repeat(values, counts).reshape((height, width), order="F")
    return mask
