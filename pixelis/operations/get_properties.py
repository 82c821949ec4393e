"""GET_PROPERTIES: colour, shape and area of the largest object in a box, or of a mask.

The object in a box is the pixels that differ from the image's background, the median colour of its
edge. That works for drawn scenes; a photograph without an even background needs a mask.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelis.operations.base import (
    BBOX_SCHEMA,
    NothingFound,
    Observation,
    Operation,
    OperationError,
    check_bbox,
)
from pixelis.operations.masks import MASK_SCHEMA, decode_mask
from pixelis.operations.pixels import (
    Mask,
    background_colour,
    bounding_box,
    colour_name,
    foreground,
    largest_region,
    pixel_array,
    shape_name,
)

MIN_AREA = 12


def object_in_box(pixels: npt.NDArray[np.int16], box: Sequence[int]) -> Mask:
    """Return the mask, of the size of the box, of the largest object in a box of an image.

    Raises:
        NothingFound: when it has fewer than MIN_AREA pixels.
    """
    x1, y1, x2, y2 = box
    region = largest_region(foreground(pixels[y1:y2, x1:x2], background_colour(pixels)))
    if region.sum() < MIN_AREA:
        raise NothingFound(f"no object in {list(box)}")
    return region


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    image = images[0]
    if "mask" in arguments:
        region = decode_mask(arguments["mask"], image.size)
        if not region.any():
            raise OperationError("mask must hold at least 1 pixel, got 0")
        pixels, (x, y) = pixel_array(image), (0, 0)
    else:
        x, y, x2, y2 = check_bbox(arguments["bbox"], image.size)
        whole = pixel_array(image)
        region = object_in_box(whole, (x, y, x2, y2))
        pixels = whole[y:y2, x:x2]
    left, top, right, bottom = bounding_box(region)
    return Observation(
        {
            "color": colour_name(pixels[region].mean(axis=0)),
            "shape": shape_name(region),
            "area": int(region.sum()),
            "center": [x + (left + right) // 2, y + (top + bottom) // 2],
        }
    )


GET_PROPERTIES = Operation(
    name="GET_PROPERTIES",
    description="Colour, shape, area and centre of the largest object in a box, or of a mask.",
    parameters={"bbox": BBOX_SCHEMA, "mask": MASK_SCHEMA},
    run=_run,
    sophistication=2,
    either=("bbox", "mask"),
)
