import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from pixelis.data.images import image_digest
from pixelis.data_prep.scenes import (
    BACKGROUND_LEVELS,
    CELL,
    CELLS,
    CLUTTER_CHOICES,
    CLUTTER_DEPTHS,
    GRAIN,
    OVERLAPPING,
    RADII,
    SIDE,
    Item,
    Scene,
    draw_items,
    overlapping_pair,
    random_digit,
    random_item,
    random_scene,
    random_text,
    render,
)
from pixelis.operations.pixels import (
    PALETTE,
    SHAPES,
    TOLERANCE,
    background_colour,
    foreground,
)
from pixelis.operations.readers.drawn import ALPHABET, text_size

SCENES = st.builds(
    lambda seed, shapes, texts, digits: random_scene(random.Random(seed), shapes, texts, digits),
    st.integers(0, 10**6),
    st.integers(0, 10),
    st.integers(0, 3),
    st.integers(0, 3),
)


def test_an_item_names_itself_and_its_place():
    item = Item((1, 3), "red", "cross")
    assert (item.name, item.place) == ("red cross", "row 2 column 4")
    assert item.point == {"x": 98, "y": 42}
    assert item.box == [84, 28, 112, 56]
    assert Item((0, 0), text="A7").name == "text"
    assert Item((0, 0), text="7", digit=905).name == "digit"


@settings(max_examples=60, deadline=None)
@given(SCENES)
def test_the_caption_says_what_stands_in_every_cell(scene):
    words = iter(scene.caption().split())
    for cell in CELLS:
        item = scene.at(cell)
        first = next(words)
        if item is None:
            assert first == "none"
        elif item.text:
            assert first == ("text" if item.digit is None else "digit")
        else:
            assert (first, next(words)) == (item.colour, item.shape)
    assert next(words, None) is None


@settings(max_examples=60, deadline=None)
@given(SCENES)
def test_items_stand_in_cells_of_their_own_in_reading_order_with_names_of_their_own(scene):
    cells = [item.cell for item in scene.items]
    assert cells == sorted(set(cells)) and set(cells) <= set(CELLS)
    names = [item.name for item in scene.shapes()]
    assert len(set(names)) == len(names)
    assert sorted(scene.shapes() + scene.texts(), key=lambda item: item.cell) == list(scene.items)
    for item in scene.texts():
        if item.digit is not None:
            assert item.text == str(load_digits().target[item.digit]) and item.digit >= 900
        else:
            assert len(item.text) == 2 and set(item.text) <= set(ALPHABET)
            assert text_size(item.text)[0] < CELL


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_covers_the_centre_of_its_cell_and_nothing_outside_it(shape):
    offsets = list(itertools.product((-1, 0, 1), repeat=2))
    drawn = [random_item(random.Random(s), (0, 0), "red", shape).offset for s in range(200)]
    assert set(drawn) == set(offsets), "these are all the offsets that are drawn"
    for size, offset in itertools.product(RADII, offsets):
        item = Item((1, 2), "blue", shape, size, offset=offset)
        empty = np.asarray(render(Scene((), 4)))
        pixels = np.asarray(render(Scene((item,), 4)))
        assert tuple(pixels[item.point["y"], item.point["x"]]) == PALETTE["blue"]
        rows, columns = np.nonzero((pixels != empty).any(axis=2))
        x1, y1, x2, y2 = item.box
        # A clear margin: neighbours never touch.
        assert x1 < columns.min() and columns.max() < x2 - 1
        assert y1 < rows.min() and rows.max() < y2 - 1


@settings(max_examples=30, deadline=None)
@given(SCENES)
def test_an_image_is_a_function_of_the_scene(scene):
    image = render(scene)
    assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
    again = render(Scene(tuple(scene.items), scene.grain_seed, scene.num_strokes))
    assert image_digest(again) == image_digest(image)
    other_grain = render(Scene(scene.items, scene.grain_seed + 1, scene.num_strokes))
    assert image_digest(other_grain) != image_digest(image)


def test_the_background_stays_far_inside_the_operations_tolerance():
    low, high = BACKGROUND_LEVELS
    for seed in range(20):
        pixels = np.asarray(render(Scene((), seed)))
        assert pixels.min() >= low - GRAIN and pixels.max() <= min(255, high + GRAIN)
        assert int(pixels.max()) - int(pixels.min()) < TOLERANCE / 2


def test_clutter_is_pale_grey_and_no_object_to_the_operations():
    deepest = BACKGROUND_LEVELS[0] - max(CLUTTER_DEPTHS)
    for seed in range(40):
        bare, pixels = (np.asarray(render(Scene((), seed, n)), dtype=np.int16) for n in (0, 16))
        assert (bare != pixels).any()
        assert np.ptp(pixels, axis=2).max() == 0 and pixels.min() >= deepest
        assert not foreground(pixels, background_colour(pixels)).any()
    assert max(CLUTTER_CHOICES) == 16 and CLUTTER_CHOICES.count(0) >= len(CLUTTER_CHOICES) / 3


def test_a_digit_is_scikit_learn_s_own_in_ink_on_the_paper():
    levels = load_digits().images
    for index in (900, 1234, 1796):
        item = Item((2, 1), text=str(load_digits().target[index]), digit=index)
        bare, pixels = (np.asarray(render(Scene(items, 4)), dtype=float) for items in ((), (item,)))
        stamp = Image.fromarray((levels[index] * 255 / 16).round().astype(np.uint8))
        share = np.asarray(stamp.resize((24, 24), Image.Resampling.BILINEAR))[..., None] / 255
        x, y = item.box[0] + 2, item.box[1] + 2
        inside = np.s_[y : y + 24, x : x + 24]
        expected = bare.copy()
        expected[inside] = bare[inside] * (1 - share) + 20 * share
        assert np.abs(pixels - expected).max() <= 1


def test_random_texts_and_digits_say_what_they_are():
    rng = random.Random(4)
    digits = [random_digit(rng, (0, 1)) for _ in range(100)]
    assert {item.text for item in digits} == set("0123456789")
    assert all(item.digit >= 900 and item.name == "digit" for item in digits)
    assert len({random_text(rng, (0, 1)).text for _ in range(100)}) > 80


DIRECTIONS = [(0, 1), (0, -1), (1, 0), (-1, 0)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_first_of_two_overlapping_shapes_covers_the_second(direction):
    rng = random.Random(str(direction))
    shapes = set()
    for seed in range(60):
        front, back = overlapping_pair(rng, (1, 2), direction)
        shapes.add((front.shape, back.shape))
        assert back.cell == (1 + direction[0], 2 + direction[1])
        assert front.colour != back.colour
        both, alone, behind, empty = (
            np.asarray(render(Scene(items, seed)))
            for items in ((front, back), (front,), (back,), ())
        )
        fronts, backs = ((image != empty).any(axis=2) for image in (alone, behind))
        assert (fronts & backs).sum() > 12
        # The first is whole, the second only where the first is not.
        assert (both[fronts] == PALETTE[front.colour]).all()
        assert (both[backs & ~fronts] == PALETTE[back.colour]).all()
        assert (both == empty)[~fronts & ~backs].all()
        for item in (front, back):
            pixel = both[item.point["y"], item.point["x"]]
            assert tuple(pixel) == PALETTE[item.colour]
        # The middle between the cells lies on both, so that what is seen there is in front.
        x, y = ((front.point[axis] + back.point[axis]) // 2 for axis in ("x", "y"))
        assert fronts[y, x] and backs[y, x]
        share = (fronts & backs).sum() / backs.sum()
        assert 0.05 < share < 0.35
    for drawn in zip(*shapes, strict=True):
        assert set(drawn) == set(OVERLAPPING)


def test_drawn_items_keep_to_what_is_allowed():
    rng = random.Random(0)
    for _ in range(20):
        items = draw_items(rng, CELLS[:5], avoid=["red circle"])
        names = {item.name for item in items}
        assert len(names) == 5 and "red circle" not in names
        assert {item.size for item in items} <= set(RADII)
