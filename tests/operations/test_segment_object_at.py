import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data_prep.scenes import CELLS, RADII, SIDE, Item
from pixelis.operations import OPERATIONS, execute
from pixelis.operations.pixels import draw_shape
from pixelis.operations.segment_object_at import segment_with


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


@pytest.fixture
def plug_in(monkeypatch):
    """Put a segmenter into the table for the length of a test."""
    return lambda segmenter: monkeypatch.setitem(
        OPERATIONS, "SEGMENT_OBJECT_AT", segment_with(segmenter)
    )


def blue_by_threshold(image, x, y):
    """All that is as blue as the sky, wherever the point is: not what region growing gives."""
    pixels = np.asarray(image).astype(int)
    return pixels[:, :, 2] > pixels[:, :, :2].max(axis=2) + 80


def test_another_segmenter_takes_the_operation_s_place(plug_in):
    image = Image.new("RGB", (40, 20), (230, 230, 230))
    draw = ImageDraw.Draw(image)
    draw.rectangle((2, 2, 5, 5), fill=(35, 70, 215))
    draw.rectangle((30, 10, 33, 13), fill=(35, 70, 215))
    grown = execute("SEGMENT_OBJECT_AT", {"x": 3, "y": 3}, [image]).result
    assert grown == {"area": 16, "bbox": [2, 2, 6, 6]}
    schema = OPERATIONS["SEGMENT_OBJECT_AT"].tool_schema()
    plug_in(blue_by_threshold)
    found = execute("SEGMENT_OBJECT_AT", {"x": 3, "y": 3}, [image]).result
    assert found == {"area": 32, "bbox": [2, 2, 34, 14]}
    assert OPERATIONS["SEGMENT_OBJECT_AT"].tool_schema() == schema
    assert execute("SEGMENT_OBJECT_AT", {"x": 40, "y": 3}, [image]).is_error


def test_a_segmenter_that_finds_nothing(plug_in):
    plug_in(blue_by_threshold)
    found = execute("SEGMENT_OBJECT_AT", {"x": 3, "y": 4}, [Image.new("RGB", (9, 9))]).result
    assert found == {"error": "no object at (3, 4)"}


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (np.ones((9, 6), dtype=bool), "bool (9, 6)"),
        (np.ones((6, 9), dtype=np.uint8), "uint8 (6, 9)"),
        (np.ones((1, 6, 9), dtype=bool), "bool (1, 6, 9)"),
        (None, "<class 'NoneType'>"),
    ],
)
def test_a_segmenter_s_mask_must_fit(mask, got, plug_in):
    plug_in(lambda image, x, y: mask)
    found = execute("SEGMENT_OBJECT_AT", {"x": 3, "y": 4}, [Image.new("RGB", (9, 6))]).result
    rule = "the segmenter's mask must be a bool array of shape (6, 9)"
    assert found == {"error": f"{rule}, got {got}"}


def test_a_segmenter_cannot_change_the_image(plug_in):
    def paints(image, x, y):
        image.paste((0, 0, 0), (0, 0, *image.size))
        return np.ones((image.height, image.width), dtype=bool)

    plug_in(paints)
    image = Image.new("RGB", (5, 5), (9, 9, 9))
    assert not execute("SEGMENT_OBJECT_AT", {"x": 0, "y": 0}, [image]).is_error
    assert image.getpixel((0, 0)) == (9, 9, 9)
