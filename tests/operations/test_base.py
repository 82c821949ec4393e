import re

import pytest

from pixelis.operations.base import Observation, OperationError, check_bbox, check_point

SIZE = (40, 30)


def test_a_box_may_touch_every_edge():
    assert check_bbox([0, 0, 40, 30], SIZE) == (0, 0, 40, 30)
    assert check_bbox((39, 29, 40, 30), SIZE) == (39, 29, 40, 30)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "0, 0, 1, 1",
        {"x1": 0},
        7,
        [],
        [0, 0, 10],
        [0, 0, 10, 10, 10],
        [0, 0, 10, True],
        [0, 0, 10, 10.0],
        [0, 0, 10, None],
        [0, 0, 10, "10"],
        [0, 0, 10, float("nan")],
        [[0], 0, 10, 10],
    ],
)
def test_a_box_is_four_integers(value):
    message = f"bbox must be four integers [x1, y1, x2, y2], got {value!r}"
    with pytest.raises(OperationError, match=f"^{re.escape(message)}$"):
        check_bbox(value, SIZE)


@pytest.mark.parametrize(
    "value",
    [
        [-1, 0, 10, 10],
        [0, -1, 10, 10],
        [0, 0, 41, 10],
        [0, 0, 10, 31],
        [10, 0, 10, 10],
        [0, 10, 10, 10],
        [20, 0, 10, 10],
        [0, 20, 10, 10],
    ],
)
def test_a_box_lies_inside_the_image_and_holds_pixels(value):
    message = f"bbox must satisfy 0 <= x1 < x2 <= 40 and 0 <= y1 < y2 <= 30, got {value!r}"
    with pytest.raises(OperationError, match=f"^{re.escape(message)}$"):
        check_bbox(value, SIZE)


@pytest.mark.parametrize("value", [["9" * 4000] * 4, [10**4000] * 4, list(range(5000))])
def test_a_message_stays_short_whatever_was_given(value):
    with pytest.raises(OperationError) as error:
        check_bbox(value, SIZE)
    assert len(str(error.value)) < 160


def test_a_point_may_be_any_pixel():
    assert check_point(0, 0, SIZE) == (0, 0)
    assert check_point(39, 29, SIZE) == (39, 29)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (-1, 0),
        (0, -1),
        (40, 0),
        (0, 30),
        (True, 0),
        (0, False),
        (1.0, 1),
        (1, 1.5),
        (None, 1),
        (1, "1"),
        ([1], 1),
        (float("inf"), 1),
    ],
)
def test_a_point_is_two_integers_inside_the_image(x, y):
    message = f"x and y must be integers with 0 <= x < 40 and 0 <= y < 30, got x={x!r}, y={y!r}"
    with pytest.raises(OperationError, match=f"^{re.escape(message)}$"):
        check_point(x, y, SIZE)


def test_an_observation_is_an_error_when_it_says_so():
    assert Observation({"error": "no text"}).is_error
    assert not Observation({"text": "error"}).is_error
