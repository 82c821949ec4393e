import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data_prep.scenes import CELLS, Item
from pixelis.operations import execute
from pixelis.operations.masks import encode_mask
from pixelis.operations.pixels import COLOURS, PALETTE, draw_shape


def test_colour_shape_and_centre_of_every_object_of_every_scene(scenes):
    checked = 0
    for scene, image in scenes:
        for item in scene.shapes():
            found = execute("GET_PROPERTIES", {"bbox": item.box}, [image]).result
            assert found["color"] == item.colour and found["shape"] == item.shape, item
            (dx, dy), (x, y) = item.offset, found["center"]
            assert abs(x - item.point["x"] - dx) <= 1 and abs(y - item.point["y"] - dy) <= 1
            checked += 1
    assert checked > 1000


def test_an_empty_cell_has_no_properties(scenes):
    for scene, image in scenes:
        if scene.texts():
            continue
        for cell in CELLS:
            if scene.at(cell) is None:
                box = Item(cell).box
                found = execute("GET_PROPERTIES", {"bbox": box}, [image])
                assert found.result == {"error": f"no object in {box}"}


def test_the_largest_of_several_is_described():
    image = Image.new("RGB", (60, 40), (240, 240, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle((5, 5, 14, 14), fill=(215, 35, 40))
    draw.ellipse((25, 5, 50, 30), fill=(35, 70, 215))
    found = execute("GET_PROPERTIES", {"bbox": [0, 0, 60, 40]}, [image]).result
    assert found["color"] == "blue" and found["shape"] == "circle"
    assert found["center"] == [38, 18]
    left = execute("GET_PROPERTIES", {"bbox": [2, 2, 20, 20]}, [image]).result
    assert left == {"color": "red", "shape": "square", "area": 100, "center": [10, 10]}


@pytest.mark.parametrize(("width", "is_error"), [(3, True), (4, False)])
def test_specks_are_no_objects(width, is_error):
    image = Image.new("RGB", (20, 20), (240, 240, 240))
    ImageDraw.Draw(image).rectangle((5, 5, 4 + width, 7), fill=(30, 150, 60))
    assert execute("GET_PROPERTIES", {"bbox": [0, 0, 20, 20]}, [image]).is_error == is_error


@pytest.mark.parametrize("colour", COLOURS)
def test_a_mask_says_what_is_meant_on_any_background(colour):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    canvas = Image.new("L", (80, 60), 0)
    draw_shape(ImageDraw.Draw(canvas), "diamond", 30, 20, 12, 255)
    mask = np.asarray(canvas) > 0
    pixels[mask] = COLOURS[colour]
    found = execute("GET_PROPERTIES", {"mask": encode_mask(mask)}, [Image.fromarray(pixels)])
    area = int(mask.sum())
    assert found.result == {"color": colour, "shape": "diamond", "area": area, "center": [30, 20]}


def test_a_mask_gives_what_the_box_of_the_same_object_gives(scenes):
    for scene, image in scenes[:30]:
        pixels = np.asarray(image).astype(int)
        for item in scene.shapes():
            x1, y1, x2, y2 = item.box
            mask = np.zeros((image.height, image.width), dtype=bool)
            drawn = (pixels[y1:y2, x1:x2] == PALETTE[item.colour]).all(axis=2)
            mask[y1:y2, x1:x2] = drawn
            by_mask = execute("GET_PROPERTIES", {"mask": encode_mask(mask)}, [image]).result
            assert by_mask == execute("GET_PROPERTIES", {"bbox": item.box}, [image]).result


def test_an_empty_mask_has_no_properties():
    mask = {"size": [4, 5], "counts": [20]}
    found = execute("GET_PROPERTIES", {"mask": mask}, [Image.new("RGB", (5, 4))]).result
    assert found == {"error": "mask must hold at least 1 pixel, got 0"}
