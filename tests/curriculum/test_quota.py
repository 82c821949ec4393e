from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum.quota import Quota


def parts(max_size=6):
    return st.lists(st.integers(0, 50), min_size=1, max_size=max_size).filter(any)


def shares(weights):
    return {str(place): weight / sum(weights) for place, weight in enumerate(weights)}


@given(parts(), st.integers(1, 400))
def test_every_prefix_is_within_one_of_the_mix(weights, num_draws):
    quota, counts = Quota(shares(weights)), dict.fromkeys(shares(weights), 0)
    for drawn in range(1, num_draws + 1):
        counts[quota.next()] += 1
        for place, weight in enumerate(weights):
            ideal = Fraction(weight * drawn, sum(weights))
            assert abs(counts[str(place)] - ideal) < 1


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=5), st.integers(1, 200))
def test_every_prefix_is_within_one_of_any_float_mix(weights, num_draws):
    mix = shares(weights)
    quota, counts = Quota(mix), dict.fromkeys(mix, 0)
    for drawn in range(1, num_draws + 1):
        counts[quota.next()] += 1
        # The fractions are exact, the floats of this test are not.
        assert all(abs(counts[name] - mix[name] * drawn) < 1 + 1e-9 for name in mix)


@given(parts(), st.integers(0, 100))
def test_goes_on_from_its_counts(weights, num_draws):
    quota = Quota(shares(weights))
    for _ in range(num_draws):
        quota.next()
    resumed = Quota(shares(weights), quota.counts, quota.credits)
    assert [resumed.next() for _ in range(50)] == [quota.next() for _ in range(50)]


def test_what_is_owed_is_carried_over():
    # Without the credit, each new quota would draw "a" ten times, and "b" never.
    drawn, owed = [], {}
    for step in range(100):
        quota = Quota({"a": 0.98 - step * 1e-5, "b": 0.02 + step * 1e-5}, credits=owed)
        drawn += [quota.next() for _ in range(10)]
        owed = quota.compute_owed()
    assert drawn.count("b") == pytest.approx(20, abs=1)


def test_credit_of_a_difficulty_that_leaves_the_mix():
    quota = Quota({"a": 0.5, "b": 0.5}, credits={"a": -(10**9), "b": -(10**9)})
    assert {quota.next() for _ in range(4)} == {"a", "b"}
