"""Stored pixels and seen pixels: the same place, whatever the scale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data.frames import Frame

SIDES = st.integers(1, 3000)
SIZES = st.tuples(SIDES, SIDES)


@st.composite
def boxes(draw, size):
    (x1, x2), (y1, y2) = (
        sorted(draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True)))
        for side in size
    )
    return x1, y1, x2, y2


@st.composite
def places(draw):
    frame = Frame(draw(SIZES), draw(SIZES))
    point = tuple(draw(st.integers(0, side - 1)) for side in frame.stored)
    return frame, draw(boxes(frame.stored)), point


@given(places())
def test_what_lies_inside_stays_inside(place):
    frame, box, point = place
    x1, y1, x2, y2 = frame.box(box)
    assert 0 <= x1 < x2 <= frame.seen[0] and 0 <= y1 < y2 <= frame.seen[1]
    x, y = frame.point(*point)
    assert 0 <= x < frame.seen[0] and 0 <= y < frame.seen[1]


@given(places())
def test_there_and_back_is_the_nearest_stored_pixel(place):
    frame, box, point = place
    for before, after in (
        (box, frame.back.box(frame.box(box))),
        (point, frame.back.point(*frame.point(*point))),
    ):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            stored, seen = frame.stored[index % 2], frame.seen[index % 2]
            if seen >= stored:
                assert one == other
            else:  # half a seen pixel, and the pixel that a box keeps
                assert abs(one - other) <= 1.5 * stored / seen + 1


@given(places())
def test_a_place_keeps_its_share_of_the_side(place):
    frame, box, point = place
    for index, (value, found) in enumerate(zip(box, frame.box(box), strict=True)):
        stored, seen = frame.stored[index % 2], frame.seen[index % 2]
        assert abs(value / stored - found / seen) <= 1 / seen + 1e-9
    for index, (value, found) in enumerate(zip(point, frame.point(*point), strict=True)):
        centre, seen = (value + 0.5) / frame.stored[index], frame.seen[index]
        assert found / seen <= centre < (found + 1) / seen + 1e-9


@given(SIZES, st.integers(0, 10**6))
def test_where_both_are_the_same_nothing_moves(size, area):
    frame = Frame(size, size)
    assert frame.is_same
    assert frame.area(area) == area
    whole = (0, 0, *size)
    assert frame.box(whole) == whole


@pytest.mark.parametrize(
    ("stored", "seen", "box", "expected"),
    [
        ((100, 50), (200, 50), (10, 10, 20, 20), (20, 10, 40, 20)),  # one side alone
        ((100, 100), (50, 50), (1, 1, 4, 4), (1, 1, 2, 2)),  # halves up
        ((100, 100), (10, 10), (41, 41, 43, 43), (4, 4, 5, 5)),  # at least a pixel
        ((100, 100), (10, 10), (99, 99, 100, 100), (9, 9, 10, 10)),  # also at the end
    ],
)
def test_edges_go_to_the_nearest_edge(stored, seen, box, expected):
    assert Frame(stored, seen).box(box) == expected


def test_points_and_areas():
    half, double = Frame((100, 100), (50, 50)), Frame((100, 100), (200, 200))
    assert [half.point(x, 0)[0] for x in (0, 1, 2, 3)] == [0, 0, 1, 1]
    assert [double.point(x, 0)[0] for x in (0, 1, 99)] == [1, 3, 199]
    assert [half.area(value) for value in (0, 1, 2, 100)] == [0, 1, 1, 25]
    assert double.area(7) == 28
