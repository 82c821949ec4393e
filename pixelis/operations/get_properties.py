"""GET_PROPERTIES: colour, shape and area of the largest object in a box."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.operations.base import (
    BBOX_SCHEMA,
    Observation,
    Operation,
    OperationError,
    check_bbox,
)
from pixelis.operations.pixels import (
    background_colour,
    bounding_box,
    colour_name,
    foreground,
    largest_region,
    pixel_array,
    shape_name,
)

MIN_AREA = 12


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    image = images[0]
    x1, y1, x2, y2 = check_bbox(arguments["bbox"], image.size)
    pixels = pixel_array(image)
    crop = pixels[y1:y2, x1:x2]
    region = largest_region(foreground(crop, background_colour(pixels)))
    area = int(region.sum())
    if area < MIN_AREA:
        raise OperationError(f"no object in {[x1, y1, x2, y2]}")
    left, top, right, bottom = bounding_box(region)
    return Observation(
        {
            "color": colour_name(crop[region].mean(axis=0)),
            "shape": shape_name(region),
            "area": area,
            "center": [x1 + (left + right) // 2, y1 + (top + bottom) // 2],
        }
    )


GET_PROPERTIES = Operation(
    name="GET_PROPERTIES",
    description="Colour, shape, area and centre of the largest object in a box.",
    parameters={"bbox": BBOX_SCHEMA},
    run=_run,
    sophistication=2,
)
