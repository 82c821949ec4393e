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


def counted(counts):
    return {"size": [2, 3], "counts": counts}


OBJECT = "be an object of size, [height, width], and counts, integers of at least 0"
COVER = "have size [height, width] = [2, 3] and at most 7 counts, got"


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (OBJECT, [None, [1, 4, 1], {}, {"counts": [6]}, counted([6]) | {"id": 1}]),
        (OBJECT, [{"size": [2.0, 3], "counts": [6]}, {"size": 6, "counts": [6]}, counted("6")]),
        (OBJECT, [counted([-1, 7]), counted([5, True]), counted([5.0, 1]), counted([6, None])]),
        (f"{COVER} [3, 2] and 1", [{"size": [3, 2], "counts": [6]}]),
        (f"{COVER} [2, 3] and 8", [counted([0] * 8)]),
        ("have counts that sum to 6", [counted([]), counted([1, 4]), counted([9 * 10**4299] * 2)]),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(rule, values):
    for value in values:
        with pytest.raises(OperationError, match=f"^mask must {re.escape(rule)}") as error:
            decode_mask(value, SIZE)
        assert len(str(error.value)) < 200


@given(st.lists(st.integers(-2, 8), max_size=9))
def test_any_counts_give_a_mask_of_the_image_or_an_error(counts):
    try:
        mask = decode_mask({"size": [2, 3], "counts": counts}, SIZE)
    except OperationError:
        return
    assert mask.shape == (2, 3) and mask.sum() == sum(counts[1::2])
