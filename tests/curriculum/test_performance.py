from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum.performance import (
    as_fraction,
    compute_delta_standard_error,
    compute_performance,
)


@pytest.mark.parametrize(
    ("value", "meant"),
    [(0.05, Fraction(1, 20)), (1 / 3, Fraction(1, 3)), (7 / 12, Fraction(7, 12)), (0, Fraction(0))],
)
def test_as_fraction_is_the_number_that_was_meant(value, meant):
    assert as_fraction(value) == meant


@given(st.floats(0, 1))
def test_as_fraction_rounds_back_to_the_float(value):
    assert float(as_fraction(value)) == value


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
)
def test_performance_is_the_weighted_sum(pairs):
    mix = {str(place): part for place, (part, _) in enumerate(pairs)}
    strata = {str(place): performance for place, (_, performance) in enumerate(pairs)}
    expected = sum(mix[name] * strata[name] for name in mix)
    assert float(compute_performance(mix, strata)) == pytest.approx(expected)


def test_a_difficulty_with_fraction_0_need_not_be_in_the_strata():
    assert compute_performance({"simple": 1.0, "hard": 0.0}, {"simple": 0.9}) == Fraction(9, 10)


def test_delta_standard_error():
    old, new = {"simple": 1.0}, {"simple": 0.4, "medium": 0.6, "hard": 0.0}
    strata, counts = {"simple": 0.9, "medium": 0.5}, {"simple": 128, "medium": 64}
    expected = (0.36 * 0.9 * 0.1 / 128 + 0.36 * 0.25 / 64) ** 0.5
    assert compute_delta_standard_error(old, new, strata, counts) == pytest.approx(expected)
