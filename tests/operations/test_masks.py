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


OBJECT = "mask must be an object of size and counts, got"
SIDES = "mask size must be [height, width] = [2, 3], got"
LIST = "mask counts must be a list of 1 to 7 runs, got"
RUN = "mask counts must be integers of at least 0, got"
SUM = "mask counts must sum to height x width = 6, got"


def counted(counts):
    return {"size": [2, 3], "counts": counts}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, f"{OBJECT} None"),
        ([1, 4, 1], f"{OBJECT} [1, 4, 1]"),
        ({}, f"{OBJECT} none"),
        ({"counts": [6]}, f"{OBJECT} counts"),
        (counted([6]) | {"id": 1}, f"{OBJECT} size, counts, id"),
        ({"size": [3, 2], "counts": [6]}, f"{SIDES} [3, 2]"),
        ({"size": [2.0, 3], "counts": [6]}, f"{SIDES} [2.0, 3]"),
        ({"size": 6, "counts": [6]}, f"{SIDES} 6"),
        (counted("6"), f"{LIST} '6'"),
        (counted([]), f"{LIST} 0"),
        (counted([0] * 8), f"{LIST} 8"),
        (counted([-1, 7]), f"{RUN} -1"),
        (counted([5, True]), f"{RUN} True"),
        (counted([5.0, 1]), f"{RUN} 5.0"),
        (counted([6, None]), f"{RUN} None"),
        (counted([1, 4]), f"{SUM} 5"),
        (counted([10**50]), f"{SUM} 10^40 or more"),
        (counted([9 * 10**4299] * 2), f"{SUM} 10^40 or more"),  # too long to be written
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
