import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixelis.operations.base import OperationError
from pixelis.operations.masks import decode_mask, encode_mask

SIZE = (3, 2)  # width, height


def test_the_encoding_to_the_letter():
    mask = np.array([[False, True, True], [True, True, False]])
    # Down the columns: 0 1, 1 1, 1 0.
    assert encode_mask(mask) == {"size": [2, 3], "counts": [1, 4, 1]}
    assert encode_mask(~mask) == {"size": [2, 3], "counts": [0, 1, 4, 1]}
    assert encode_mask(mask & ~mask) == {"size": [2, 3], "counts": [6]}
    assert encode_mask(mask | ~mask) == {"size": [2, 3], "counts": [0, 6]}


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_decoding_gives_back_what_was_encoded(mask):
    value = json.loads(json.dumps(encode_mask(mask)))
    assert (decode_mask(value, mask.shape[::-1]) == mask).all()
    assert sum(value["counts"]) == mask.size and 0 not in value["counts"][1:]


@pytest.mark.parametrize("counts", [[1, 4, 1], [1, 0, 0, 4, 1], [1, 2, 0, 2, 1], (1, 4, 1, 0)])
def test_empty_runs_are_allowed(counts):
    found = decode_mask({"size": [2, 3], "counts": counts}, SIZE)
    assert found.tolist() == [[False, True, True], [True, True, False]]
    assert found.dtype == bool


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "mask must be an object of size and counts, got None"),
        ([1, 4, 1], "mask must be an object of size and counts, got [1, 4, 1]"),
        ({}, "mask must be an object of size and counts, got none"),
        ({"counts": [6]}, "mask must be an object of size and counts, got counts"),
        (
            {"size": [2, 3], "counts": [6], "id": 1},
            "mask must be an object of size and counts, got size, counts, id",
        ),
        (
            {"size": [3, 2], "counts": [6]},
            "mask size must be [height, width] = [2, 3], got [3, 2]",
        ),
        (
            {"size": [2.0, 3], "counts": [6]},
            "mask size must be [height, width] = [2, 3], got [2.0, 3]",
        ),
        ({"size": 6, "counts": [6]}, "mask size must be [height, width] = [2, 3], got 6"),
        ({"size": [2, 3], "counts": "6"}, "mask counts must be a list of 1 to 7 runs, got '6'"),
        ({"size": [2, 3], "counts": []}, "mask counts must be a list of 1 to 7 runs, got 0"),
        ({"size": [2, 3], "counts": [0] * 8}, "mask counts must be a list of 1 to 7 runs, got 8"),
        ({"size": [2, 3], "counts": [-1, 7]}, "mask counts must be integers of at least 0, got -1"),
        (
            {"size": [2, 3], "counts": [5, True]},
            "mask counts must be integers of at least 0, got True",
        ),
        (
            {"size": [2, 3], "counts": [5.0, 1]},
            "mask counts must be integers of at least 0, got 5.0",
        ),
        (
            {"size": [2, 3], "counts": [6, None]},
            "mask counts must be integers of at least 0, got None",
        ),
        (
            {"size": [2, 3], "counts": [1, 4]},
            "mask counts must sum to height x width = 6, got 5",
        ),
        (
            {"size": [2, 3], "counts": [10**50]},
            "mask counts must sum to height x width = 6, got 10^40 or more",
        ),
        (  # each can be written, their sum not
            {"size": [2, 3], "counts": [9 * 10**4299] * 2},
            "mask counts must sum to height x width = 6, got 10^40 or more",
        ),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(value, message):
    with pytest.raises(OperationError, match=f"^{re.escape(message)}$"):
        decode_mask(value, SIZE)


@given(st.lists(st.integers(-2, 8), max_size=9))
def test_any_counts_give_a_mask_of_the_image_or_an_error(counts):
    try:
        mask = decode_mask({"size": [2, 3], "counts": counts}, SIZE)
    except OperationError:
        return
    assert mask.shape == (2, 3) and mask.sum() == sum(counts[1::2])
