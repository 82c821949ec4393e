import dataclasses

import pytest

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, Location, plural


def location(number):
    return Location(f"place {number}", (number, 0, number + 10, 10), (number + 5, 5))


def thing(number, name="red circle", **more):
    place = location(number)
    more = {"cell": (0, number)} | more
    kind = name.split()[-1]
    return Instance(name, kind, place, place.box, 70, (number + 1, 1), **more)


def picture(*things, **more):
    return AnnotatedImage(instances=things, draw=lambda: (), **more)


CIRCLE = thing(0)
CROSS = thing(20, "blue cross")
TEXT = thing(40, "text", text="A7")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("circle", "circles"),
        ("cross", "crosses"),
        ("box", "boxes"),
        ("bench", "benches"),
        ("toothbrush", "toothbrushes"),
        ("bus", "buses"),
        ("wine glass", "wine glasses"),
        ("cherry", "cherries"),
        ("toy", "toys"),
        ("zebra", "zebras"),
        ("person", "people"),
        ("mouse", "mice"),
        ("knife", "knives"),
        ("sheep", "sheep"),
        ("skis", "skis"),
        ("scissors", "scissors"),
        ("broccoli", "pieces of broccoli"),
        ("y", "ies"),
    ],
)
def test_plurals(kind, expected):
    assert plural(kind) == expected


def test_objects_are_what_is_no_text():
    assert picture(CIRCLE, TEXT, CROSS).objects() == [CIRCLE, CROSS]


def test_unique_is_what_its_name_tells_from_all_others():
    twin = thing(60, "blue cross")
    assert picture(CIRCLE, TEXT, CROSS).unique() == [CIRCLE, CROSS]
    assert picture(CIRCLE, CROSS, twin).unique() == [CIRCLE]
    # Of an uncounted kind there may be others that are not among the things.
    assert picture(CIRCLE, CROSS, uncounted=frozenset({"circle"})).unique() == [CROSS]
    assert picture().unique() == []


def test_a_text_of_an_object_s_name_makes_it_ambiguous():
    assert picture(CIRCLE, thing(20, "red circle", text="A7")).unique() == []


def test_what_stands_in_a_cell():
    assert picture(CIRCLE, CROSS).at((0, 20)) == CROSS
    assert picture(CIRCLE, CROSS).at((1, 20)) is None
    # Where there is no grid nothing stands in a cell.
    assert picture(dataclasses.replace(CIRCLE, cell=None)).at((0, 0)) is None


def test_a_wrong_look_falls_on_nothing_or_on_a_thing_that_was_not_meant():
    shown = picture(CIRCLE, CROSS, TEXT, free=(location(80), location(90)))
    assert shown.wrong_locations(empty=True, right=[CIRCLE.location]) == [
        location(80),
        location(90),
    ]
    assert shown.wrong_locations(empty=False, right=[CIRCLE.location]) == [
        CROSS.location,
        TEXT.location,
    ]
    assert (
        shown.wrong_locations(empty=False, right=[t.location for t in (CIRCLE, CROSS, TEXT)]) == []
    )


def test_provenance_keeps_what_there_is():
    assert dataclasses.replace(CIRCLE, cell=None).truth() == {
        "name": "red circle",
        "box": [0, 0, 10, 10],
        "area": 70,
    }
    path = (location(0), location(20))
    full = thing(0, "text", text="A7", occluded=1 / 3, path=path)
    assert full.truth() == {
        "name": "text",
        "box": [0, 0, 10, 10],
        "area": 70,
        "cell": [0, 0],
        "text": "A7",
        "occluded": 0.3333,
        "path": ["place 0", "place 20"],
    }


def test_pictures_are_equal_by_what_is_in_them():
    assert picture(CIRCLE) == picture(CIRCLE)
    assert picture(CIRCLE) != picture(CIRCLE, num_frames=2)
