import pytest

from pixelis.operations import OPERATIONS
from pixelis.operations.schema import fits_schema

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


def test_a_schema_of_a_type_that_no_parameter_has_is_our_own_bug():
    with pytest.raises(AssertionError, match="no parameter is of type 'string'"):
        fits_schema("x", {"type": "string"})
