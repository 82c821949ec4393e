import numpy as np
import pytest
from PIL import Image

from pixelis.operations import execute
from pixelis.operations.pixels import colour_name
from pixelis.operations.zoom_in import MAX_FACTOR


def zoom(image, box, **factor):
    return execute("ZOOM_IN", {"bbox": list(box), **factor}, [image])


def test_factor_one_is_the_crop_itself(scenes):
    for scene, image in scenes[:20]:
        for item in scene.items:
            found = zoom(image, item.box, factor=1)
            assert found.result == {"size": [28, 28]}
            assert found.image.mode == "RGB"
            assert found.image.tobytes() == image.crop(item.box).tobytes()


@pytest.mark.parametrize("factor", range(2, MAX_FACTOR + 1))
def test_a_zoomed_object_is_itself_and_larger(factor, scenes):
    for scene, image in scenes[:40]:
        for item in scene.shapes():
            found = zoom(image, item.box, factor=factor)
            assert found.image.size == (28 * factor, 28 * factor)
            assert found.result == {"size": list(found.image.size)}
            centre = np.array(found.image.getpixel((14 * factor, 14 * factor)))
            assert colour_name(centre) == item.colour
            # The operations see in it what they see in the original.
            whole = {"bbox": [0, 0, 28 * factor, 28 * factor]}
            near = execute("GET_PROPERTIES", whole, [found.image]).result
            far = execute("GET_PROPERTIES", {"bbox": item.box}, [image]).result
            assert near["color"] == item.colour and near["shape"] == item.shape
            assert 0.7 < near["area"] / far["area"] / factor**2 < 1.3


def test_the_factor_is_two_unless_given(scenes):
    image = scenes[0][1]
    assert zoom(image, (0, 0, 28, 14)).result == {"size": [56, 28]}
    assert zoom(image, (0, 0, 28, 14)).image == zoom(image, (0, 0, 28, 14), factor=2).image


@pytest.mark.parametrize("factor", [0, -1, MAX_FACTOR + 1, 1.0, 1.5, True, None, "2", [2]])
def test_a_factor_outside_its_rule_is_refused(factor, scenes):
    found = zoom(scenes[0][1], (0, 0, 28, 28), factor=factor)
    assert found.result == {"error": f"factor must be an integer in [1, 4], got {factor!r}"}
    assert found.image is None


def test_the_zoomed_crop_has_a_largest_side():
    image = Image.fromarray(np.zeros((20, 1100, 3), dtype=np.uint8))
    assert zoom(image, (0, 0, 1024, 10), factor=2).image.size == (2048, 20)
    found = zoom(image, (0, 0, 1025, 10), factor=2)
    rule = "the zoomed crop must be at most 2048 pixels a side, got 2050 x 20"
    assert found.result == {"error": rule} and found.image is None
