import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.data.generate import image_digest
from pixelis.data.scenes import (
    BACKGROUND_LEVELS,
    CELL,
    CELLS,
    GRAIN,
    GRID,
    RADII,
    SIDE,
    Item,
    Scene,
    build_scene,
    draw_items,
    random_item,
    random_scene,
    render,
)
from pixelis.operations.pixels import PALETTE, SHAPES, TOLERANCE
from pixelis.operations.read_text import ALPHABET, text_size

SCENES = st.builds(
    lambda seed, shapes, texts: random_scene(random.Random(seed), shapes, texts),
    st.integers(0, 10**6),
    st.integers(0, 12),
    st.integers(0, 4),
)


def test_sixteen_cells_in_reading_order_one_visual_token_each():
    assert (CELL, GRID, SIDE) == (28, 4, 112)
    assert len(CELLS) == 16 and list(CELLS) == sorted(CELLS)
    assert CELLS[0] == (0, 0) and CELLS[1] == (0, 1) and CELLS[-1] == (3, 3)


def test_an_item_names_itself_and_its_place():
    item = Item((1, 3), "red", "cross")
    assert (item.name, item.place) == ("red cross", "row 2 column 4")
    assert item.point == {"x": 98, "y": 42}
    assert item.box == [84, 28, 112, 56]
    assert Item((0, 0), text="A7").name == "text"


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
            assert first == "text"
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
        assert len(item.text) == 2 and set(item.text) <= set(ALPHABET)
        assert text_size(item.text)[0] < CELL


def test_a_scene_holds_as_many_items_as_asked_for():
    scene = random_scene(random.Random(0), 7, 3)
    assert len(scene.shapes()) == 7 and len(scene.texts()) == 3
    assert scene.caption().split().count("none") == 6


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
    again = render(Scene(tuple(scene.items), scene.grain_seed))
    assert image_digest(again) == image_digest(image)
    other_grain = render(Scene(scene.items, scene.grain_seed + 1))
    assert image_digest(other_grain) != image_digest(image)


def test_every_item_changes_the_image():
    scene = random_scene(random.Random(3), 6, 2)
    digests = {image_digest(render(scene))}
    for left_out in scene.items:
        rest = tuple(item for item in scene.items if item is not left_out)
        digests.add(image_digest(render(Scene(rest, scene.grain_seed))))
    assert len(digests) == 9


def test_the_background_stays_far_inside_the_operations_tolerance():
    low, high = BACKGROUND_LEVELS
    for seed in range(20):
        pixels = np.asarray(render(Scene((), seed)))
        assert pixels.min() >= low - GRAIN and pixels.max() <= min(255, high + GRAIN)
        assert int(pixels.max()) - int(pixels.min()) < TOLERANCE / 2


def test_the_same_seed_draws_the_same_scene():
    first, second, third = (random_scene(random.Random(s), 5, 1) for s in (1, 1, 2))
    assert first == second != third


def test_build_scene_puts_items_in_reading_order():
    items = [Item((2, 1), "red", "circle"), Item((0, 3), text="A7"), Item((2, 0), "blue", "cross")]
    scene = build_scene(random.Random(0), items)
    assert [item.cell for item in scene.items] == [(0, 3), (2, 0), (2, 1)]


def test_drawn_items_keep_to_what_is_allowed():
    rng = random.Random(0)
    for _ in range(20):
        items = draw_items(
            rng, CELLS[:5], colours=("red", "blue"), shapes=SHAPES[:3], avoid=["red circle"]
        )
        names = {item.name for item in items}
        assert len(names) == 5 and "red circle" not in names
        assert {item.colour for item in items} <= {"red", "blue"}
        assert {item.shape for item in items} <= set(SHAPES[:3])
        assert {item.size for item in items} <= set(RADII)


def test_more_cells_than_names():
    with pytest.raises(ValueError, match="^3 cells need as many free names, got 2$"):
        draw_items(
            random.Random(0), CELLS[:3], colours=("red",), shapes=SHAPES[:3], avoid=["red circle"]
        )
