import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data.scenes import CELLS, RADII, SIDE, Item
from pixelis.operations import execute
from pixelis.operations.pixels import draw_shape


def outline(item):
    """The item's own pixels, drawn alone."""
    canvas = Image.new("L", (SIDE, SIDE), 0)
    x1, y1, x2, y2 = item.box
    cx, cy = (x1 + x2) / 2 + item.offset[0], (y1 + y2) / 2 + item.offset[1]
    draw_shape(ImageDraw.Draw(canvas), item.shape, cx, cy, RADII[item.size], 255)
    return canvas


def test_every_shape_of_every_scene_to_the_pixel(scenes):
    checked = 0
    for scene, image in scenes:
        for item in scene.shapes():
            alone = outline(item)
            area = int((np.asarray(alone) > 0).sum())
            truth = {"area": area, "bbox": list(alone.getbbox())}
            assert execute("SEGMENT_OBJECT_AT", item.point, [image]).result == truth, item
            checked += 1
    assert checked > 1000


def test_an_empty_cell_holds_no_object(scenes):
    for scene, image in scenes:
        for cell in CELLS:
            if scene.at(cell) is None:
                point = Item(cell).point
                error = f"no object at ({point['x']}, {point['y']})"
                found = execute("SEGMENT_OBJECT_AT", point, [image])
                assert found.result == {"error": error}


@pytest.mark.parametrize("side", [6, 7])
def test_what_covers_more_than_half_the_image_is_no_object(side):
    # 49 of 98 pixels are just half.
    image = Image.new("RGB", (14, 7), (255, 255, 255))
    ImageDraw.Draw(image).rectangle((0, 0, side - 1, 6), fill=(0, 0, 200))
    blue = execute("SEGMENT_OBJECT_AT", {"x": 0, "y": 0}, [image])
    white = execute("SEGMENT_OBJECT_AT", {"x": 13, "y": 0}, [image])
    assert blue.result == {"area": side * 7, "bbox": [0, 0, side, 7]}
    assert white.is_error == (side == 6)


@pytest.mark.parametrize("x", [-1, SIDE, 1.0, True, None, "5"])
def test_a_point_outside_the_rules_is_refused(x, scenes):
    result = execute("SEGMENT_OBJECT_AT", {"x": x, "y": 5}, [scenes[0][1]]).result
    rule = f"x and y must be integers with 0 <= x < {SIDE} and 0 <= y < {SIDE}"
    assert result == {"error": f"{rule}, got x={x!r}, y=5"}
