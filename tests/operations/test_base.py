import re

import pytest

from pixelis.operations import OPERATIONS
from pixelis.operations.base import OperationError, check_bbox, check_point

SIZE = (40, 30)


@pytest.mark.parametrize("box", [[0, 0, 40, 30], (39, 29, 40, 30)])
def test_a_box_may_touch_every_edge(box):
    assert check_bbox(box, SIZE) == tuple(box)


INTEGERS = "be four integers [x1, y1, x2, y2]"
INSIDE = "satisfy 0 <= x1 < x2 <= 40 and 0 <= y1 < y2 <= 30"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        *((value, INTEGERS) for value in (None, "0, 0, 1, 1", {"x1": 0}, 7, [], [0, 0, 10])),
        *(([0, 0, 10, last], INTEGERS) for last in (True, 10.0, None, "10", float("nan"))),
        ([0, 0, 10, 10, 10], INTEGERS),
        ([[0], 0, 10, 10], INTEGERS),
        *(([-1, 0, 10, 10], INSIDE), ([0, -1, 10, 10], INSIDE)),
        *(([0, 0, 41, 10], INSIDE), ([0, 0, 10, 31], INSIDE)),
        *(([10, 0, 10, 10], INSIDE), ([0, 10, 10, 10], INSIDE)),
        *(([20, 0, 10, 10], INSIDE), ([0, 20, 10, 10], INSIDE)),
    ],
)
def test_a_box_is_four_integers_inside_the_image(value, rule):
    with pytest.raises(OperationError, match=f"^{re.escape(f'bbox must {rule}, got {value!r}')}$"):
        check_bbox(value, SIZE)


@pytest.mark.parametrize("value", [["9" * 4000] * 4, [10**4000] * 4, list(range(5000))])
def test_a_message_stays_short_whatever_was_given(value):
    with pytest.raises(OperationError) as error:
        check_bbox(value, SIZE)
    assert len(str(error.value)) < 160


WRONG = [(-1, 0), (0, -1), (40, 0), (0, 30), (True, 0), (0, False), (1.0, 1), (1, 1.5), (None, 1),
         (1, "1"), ([1], 1), (float("inf"), 1)]  # fmt: skip


def test_a_point_is_two_integers_inside_the_image():
    for point in [(0, 0), (39, 29)]:
        assert check_point(*point, SIZE) == point
    rule = "x and y must be integers with 0 <= x < 40 and 0 <= y < 30"
    for x, y in WRONG:
        message = f"{rule}, got x={x!r}, y={y!r}"
        with pytest.raises(OperationError, match=f"^{re.escape(message)}$"):
            check_point(x, y, SIZE)


MASK = {"size": [2, 2], "counts": [0, 4]}


@pytest.mark.parametrize(
    ("name", "arguments", "takes"),
    [
        ("ZOOM_IN", {"bbox": [0, 0, 4, 4]}, True),
        ("ZOOM_IN", {"bbox": [0, 0, 4, 4], "factor": 2}, True),
        ("ZOOM_IN", {"bbox": [0, 0, 4, 4], "factor": 0}, False),
        ("ZOOM_IN", {"bbox": [0, 0, 4, 4], "factor": 10**9}, False),
        ("ZOOM_IN", {"bbox": [0, 0, 4, 4], "factor": True}, False),
        ("ZOOM_IN", {"bbox": [0, 0, 4, 4], "zoom": 2}, False),
        ("ZOOM_IN", {"factor": 2}, False),
        ("READ_TEXT", {"bbox": [0, 0, 4]}, False),
        ("READ_TEXT", {"bbox": [0, 0, 4, 4, 4]}, False),
        ("READ_TEXT", {"bbox": [0, 0, 4, 4.0]}, False),
        ("READ_TEXT", {"bbox": "0, 0, 4, 4"}, False),
        ("READ_TEXT", [0, 0, 4, 4], False),
        ("READ_TEXT", None, False),
        ("TRACK_OBJECT", {"frames": [1, 2], "bbox": [0, 0, 4, 4]}, True),
        ("TRACK_OBJECT", {"frames": [1], "bbox": [0, 0, 4, 4]}, False),
        ("TRACK_OBJECT", {"frames": [0, 1], "bbox": [0, 0, 4, 4]}, False),
        ("GET_PROPERTIES", {"mask": MASK}, True),
        ("GET_PROPERTIES", {"mask": {"size": [2, 2]}}, False),
        ("GET_PROPERTIES", {"mask": {**MASK, "of": "it"}}, False),
        ("GET_PROPERTIES", {"mask": 3}, False),
        ("GET_PROPERTIES", {"mask": MASK, "bbox": [0, 0, 1, 1]}, False),
        ("GET_PROPERTIES", {}, False),
    ],
)
def test_what_an_operation_takes(name, arguments, takes):
    assert OPERATIONS[name].takes(arguments) is takes
