import dataclasses

import pytest

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, Location, plural


def location(number):
    return Location(f"place {number}", (number, 0, number + 10, 10), (number + 5, 5))


def instance(number, name="red circle", **more):
    place = location(number)
    more = {"cell": (0, number)} | more
    kind = name.split()[-1]
    return Instance(name, kind, place, place.box, 70, (number + 1, 1), **more)


def picture(*instances, **more):
    return AnnotatedImage(instances=instances, draw=lambda: (), **more)


CIRCLE = instance(0)
CROSS = instance(20, "blue cross")
TEXT = instance(40, "text", text="A7")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("circle", "circles"),
        ("cross", "crosses"),
        ("bench", "benches"),
        ("wine glass", "wine glasses"),
        ("cherry", "cherries"),
        ("toy", "toys"),
        ("person", "people"),
        ("mouse", "mice"),
        ("scissors", "scissors"),
        ("broccoli", "pieces of broccoli"),
    ],
)
def test_plurals(kind, expected):
    assert plural(kind) == expected


def test_objects_are_no_texts_and_unique_ones_have_a_name_of_their_own():
    twin = instance(60, "blue cross")
    assert picture(CIRCLE, TEXT, CROSS).objects() == [CIRCLE, CROSS]
    assert picture(CIRCLE, TEXT, CROSS).unique() == [CIRCLE, CROSS]
    assert picture(CIRCLE, CROSS, twin).unique() == [CIRCLE]
    # Of an uncounted kind there may be others that are not annotated.
    assert picture(CIRCLE, CROSS, uncounted=frozenset({"circle"})).unique() == [CROSS]
    # A text may have an object's name.
    assert picture(CIRCLE, instance(20, "red circle", text="A7")).unique() == []


def test_provenance_leaves_out_what_an_instance_does_not_have():
    kept = {"name": "red circle", "box": [0, 0, 10, 10], "area": 70}
    assert dataclasses.replace(CIRCLE, cell=None).provenance() == kept
    path = (location(0), location(20))
    text = instance(0, "text", text="A7", occluded=1 / 3, path=path)
    assert text.provenance() == kept | {
        "name": "text",
        "cell": [0, 0],
        "text": "A7",
        "occluded": 0.3333,
        "path": ["place 0", "place 20"],
    }
