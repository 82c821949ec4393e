"""SEGMENT_OBJECT_AT: the object under a point, by region growing on the pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.operations.base import Observation, Operation, OperationError, check_point
from pixelis.operations.pixels import MAX_OBJECT_SHARE, bounding_box, grow_region, pixel_array


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    image = images[0]
    x, y = check_point(arguments["x"], arguments["y"], image.size)
    region = grow_region(pixel_array(image), x, y)
    area = int(region.sum())
    if area > MAX_OBJECT_SHARE * region.size:
        raise OperationError(f"no object at ({x}, {y})")
    return Observation({"area": area, "bbox": list(bounding_box(region))})


SEGMENT_OBJECT_AT = Operation(
    name="SEGMENT_OBJECT_AT",
    description="Segment the object at a point: its area in pixels and its bounding box.",
    parameters={
        "x": {"type": "integer", "description": "pixels from the left"},
        "y": {"type": "integer", "description": "pixels from the top"},
    },
    run=_run,
    sophistication=3,
)
