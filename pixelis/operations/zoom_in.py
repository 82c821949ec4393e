"""ZOOM_IN: look closer at a part of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.operations.base import BBOX_SCHEMA, Observation, Operation, OperationError, check_bbox

MAX_FACTOR = 4
MAX_SIDE = 2048


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    image = images[0]
    x1, y1, x2, y2 = check_bbox(arguments["bbox"], image.size)
    factor = arguments["factor"]
    if type(factor) is not int or not 1 <= factor <= MAX_FACTOR:
        raise OperationError(f"factor must be an integer in [1, {MAX_FACTOR}], got {factor!r:.30}")
    width, height = (x2 - x1) * factor, (y2 - y1) * factor
    if max(width, height) > MAX_SIDE:
        raise OperationError(
            f"the zoomed crop must be at most {MAX_SIDE} pixels a side, got {width} x {height}"
        )
    crop = image.convert("RGB").crop((x1, y1, x2, y2))
    zoomed = crop.resize((width, height), Image.Resampling.BILINEAR)
    return Observation({"size": [width, height]}, zoomed)


ZOOM_IN = Operation(
    name="ZOOM_IN",
    description="Crop a box of the image, enlarge it, and look at it.",
    parameters={
        "bbox": BBOX_SCHEMA,
        "factor": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_FACTOR,
            "description": "how many times larger",
        },
    },
    run=_run,
    sophistication=2,
    defaults={"factor": 2},
)
