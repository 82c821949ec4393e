import numpy as np
import pytest
from PIL import Image

from pixelis.data_prep.regions import (
    CALL_COLOUR,
    REFERENCE_COLOUR,
    LabelledRegion,
    box_iou,
    draw_regions,
    find_regions,
)

PINK, GREEN = (0xD6, 0x00, 0x6C), (0x00, 0x85, 0x7C)


def has(image, colour):
    return (np.asarray(image) == colour).all(-1)


@pytest.mark.parametrize(
    ("arguments", "result", "frame", "places"),
    [
        ({"bbox": [1, 2, 3, 4]}, {}, 1, [(1, 2, 3, 4)]),
        ({"bbox": [1, 2, 3, 4]}, {}, 2, []),
        ({"x": 5, "y": 6}, {"bbox": [1, 2, 3, 4]}, 1, [(5, 6)]),
        ({"frames": [1, 3], "bbox": [0, 0, 1, 1]}, {"boxes": [[1, 1, 2, 2], [3, 3, 4, 4]]}, 3,
         [(3, 3, 4, 4)]),
        # Whatever a model writes.
        ([1, 2], {}, 1, []),
        ("bbox", None, 1, []),
        (None, None, 1, []),
        ({"bbox": [4, 3, 2, 1]}, {}, 1, []),
        ({"bbox": [0, 0, float("inf"), 9]}, {}, 1, []),
        ({"bbox": [0, 0, 10**400, 9]}, {}, 1, []),
        ({"x": float("nan"), "y": 1}, {}, 1, []),
        ({"x": True, "y": 1}, {}, 1, []),
        ({"x": 10**400, "y": 1}, {}, 1, []),
        ({"bbox": {"x": 1}, "frames": "all"}, {}, 1, []),
    ],
)  # fmt: skip
def test_the_places_of_a_call(arguments, result, frame, places):
    assert find_regions(arguments, result, frame) == places


def test_overlap_is_intersection_over_union():
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_a_small_image_is_enlarged_and_a_large_one_reduced():
    assert draw_regions(Image.new("RGB", (112, 56)), ()).size == (448, 224)
    assert draw_regions(Image.new("RGB", (4000, 1000)), ()).size == (440, 110)
    assert draw_regions(Image.new("L", (3000, 1)), ()).size == (440, 1)


def test_a_box_is_drawn_where_it_is_and_the_image_stays_as_it_was():
    image = Image.new("RGB", (110, 110), "black")
    shown = draw_regions(image, [LabelledRegion((20, 30, 60, 70), "1")])
    rows, columns = has(shown, PINK).nonzero()
    assert (columns.min(), columns.max()) == (80, 239)  # an image's pixel is 4 wide
    assert rows.max() == 279 and 30 * 4 - 30 < rows.min() < 30 * 4  # the label is above
    assert not np.asarray(image).any()


def test_the_references_label_leaves_the_models_one_readable():
    image = Image.new("RGB", (110, 110), "black")
    place = (50, 50)
    alone = has(draw_regions(image, [LabelledRegion(place, "1")]), PINK).sum()
    both = draw_regions(
        image,
        [LabelledRegion(place, "R1", REFERENCE_COLOUR), LabelledRegion(place, "1", CALL_COLOUR)],
    )
    assert has(both, PINK).sum() == pytest.approx(alone, rel=0.1)
    assert has(both, GREEN).sum() > 100


@pytest.mark.parametrize("place", [(-50, -50, -10, -10), (500, 5), (3, 900, 9, 999)])
def test_what_lies_outside_is_left_out(place):
    assert not has(
        draw_regions(Image.new("RGB", (100, 80)), [LabelledRegion(place, "1")]), PINK
    ).any()


@pytest.mark.parametrize("place", [(-1e300, -5, 1e300, 5), (99.9, 79.9), (0, 0, 0.1, 0.1)])
def test_what_reaches_outside_ends_at_the_border(place):
    assert has(
        draw_regions(Image.new("RGB", (100, 80)), [LabelledRegion(place, "12345")]), PINK
    ).any()
