import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data_prep.difficulty.score import Score, log_scaled


@pytest.mark.parametrize(
    ("value", "parts", "expected"),
    [
        (1.5, {}, "difficulty value must be in [0, 1], got 1.5"),
        (0.5, {"clutter": -0.1}, "difficulty clutter must be in [0, 1], got -0.1"),
        (float("nan"), {}, "difficulty value must be in [0, 1], got nan"),
    ],
)
def test_a_score_outside_the_unit_interval_is_a_bug(value, parts, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        Score(value, parts)


@given(st.integers(0, 200), st.integers(1, 100))
def test_the_logarithmic_scale_rises_to_one(count, full):
    value = log_scaled(count, full)
    assert 0 <= value <= 1
    assert value <= log_scaled(count + 1, full)
    assert (value == 1) == (count >= full)
    assert log_scaled(0, full) == 0
