import random

from pixelis.data.scenes import CELLS, Item
from pixelis.data.tasks.draft import (
    fill_scene,
    located,
    name_list,
    properties,
    read,
    segment,
    zoom,
)

ITEM = Item((1, 2), "red", "circle")


def test_calls_look_at_the_item_s_cell():
    assert segment(ITEM, "a").arguments == {"x": 70, "y": 42}
    assert properties(ITEM, "a").arguments == {"bbox": [56, 28, 84, 56]}
    assert zoom(ITEM, "a").arguments == {"bbox": [56, 28, 84, 56], "factor": 2}
    assert read(ITEM, "a").arguments == {"bbox": [56, 28, 84, 56]}
    names = [call(ITEM, "a").operation for call in (segment, properties, zoom, read)]
    assert names == ["SEGMENT_OBJECT_AT", "GET_PROPERTIES", "ZOOM_IN", "READ_TEXT"]
    assert located(ITEM) == "The red circle is in row 2 column 3."


def test_names_are_listed_as_in_a_question():
    others = [Item((0, 0), "blue", "cross"), Item((0, 1), "green", "square")]
    assert name_list([ITEM, others[0]]) == "the red circle or the blue cross"
    assert name_list([ITEM, *others]) == "the red circle, the blue cross or the green square"


def test_filling_adds_what_is_asked_for_where_it_may():
    for seed in range(50):
        scene = fill_scene(
            random.Random(seed),
            [ITEM],
            num_distractors=5,
            num_texts=2,
            keep_free=[(0, 0), (0, 1)],
        )
        assert ITEM in scene.items
        assert len(scene.shapes()) == 6 and len(scene.texts()) == 2
        assert scene.at((0, 0)) is scene.at((0, 1)) is None
        assert [item.name for item in scene.items].count("red circle") == 1


def test_filling_drops_what_is_to_be_avoided():
    for seed in range(50):
        scene = fill_scene(
            random.Random(seed),
            [ITEM],
            num_distractors=8,
            avoid=lambda item: item.shape == "circle",
        )
        assert [item for item in scene.shapes() if item.shape == "circle"] == [ITEM]
        assert 1 < len(scene.items) <= 9


def test_filling_stops_when_the_grid_is_full():
    items = [Item(cell, "red", "circle") for cell in CELLS[:14]]
    scene = fill_scene(random.Random(0), items, num_distractors=5, num_texts=5)
    assert len(scene.items) == 16 and len(scene.texts()) == 0
