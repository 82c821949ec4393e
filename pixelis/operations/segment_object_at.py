"""SEGMENT_OBJECT_AT: the object at a point, by region growing or by the user's own segmenter.

A segmenter takes an RGB image and a pixel (x, y) of it, and returns a boolean mask of shape
(height, width); if it finds nothing, it raises `OperationError`. To plug in SAM (its own weights
and package, `predictor` below):

    def sam(image, x, y):
        predictor.set_image(np.asarray(image))
        masks, scores, _ = predictor.predict(np.array([[x, y]]), np.array([1]))
        return masks[scores.argmax()].astype(bool)

    OPERATIONS["SEGMENT_OBJECT_AT"] = segment_with(sam)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pixelis.operations.base import (
    NothingFound,
    Observation,
    Operation,
    OperationError,
    check_point,
)
from pixelis.operations.pixels import MAX_OBJECT_SHARE, Mask, bounding_box, grow_region, pixel_array

Segmenter = Callable[[Image.Image, int, int], Mask]


def region_growing(image: Image.Image, x: int, y: int) -> Mask:
    """Return the region of one colour around (x, y).

    Raises:
        OperationError: when the region is larger than MAX_OBJECT_SHARE of the image.
    """
    region = grow_region(pixel_array(image), x, y)
    if region.sum() > MAX_OBJECT_SHARE * region.size:
        raise NothingFound(f"no object at ({x}, {y})")
    return region


def segment_with(segmenter: Segmenter) -> Operation:
    """Return SEGMENT_OBJECT_AT with another segmenter, to replace the one in `OPERATIONS`.

    A mask that is empty, not boolean, or has another size returns an error observation.
    """

    def run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
        image = images[0].convert("RGB")
        x, y = check_point(arguments["x"], arguments["y"], image.size)
        mask = segmenter(image, x, y)
        shape = (image.height, image.width)
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != shape:
            kind = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask)
            raise OperationError(
                f"the segmenter's mask must be a bool array of shape {shape}, got {kind}"
            )
        if not mask.any():
            raise NothingFound(f"no object at ({x}, {y})")
        return Observation({"area": int(mask.sum()), "bbox": list(bounding_box(mask))})

    return Operation(
        name="SEGMENT_OBJECT_AT",
        description="Segment the object at a point: its area in pixels and its bounding box.",
        parameters={
            "x": {"type": "integer", "description": "pixels from the left"},
            "y": {"type": "integer", "description": "pixels from the top"},
        },
        run=run,
        sophistication=3,
    )


SEGMENT_OBJECT_AT = segment_with(region_growing)
