import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pixelis.evaluation.intervals import Score, bootstrap_interval, compute_ratio, ratio_table


def test_interval_is_the_percentiles_of_the_resampled_means():
    # The mean of resampled zeros and ones is binomial: its quantiles are known.
    values = [1.0] * 30 + [0.0] * 70
    low, high = bootstrap_interval(values, num_samples=20_000, seed=0)
    assert low == pytest.approx(binom(100, 0.3).ppf(0.025) / 100, abs=0.011)
    assert high == pytest.approx(binom(100, 0.3).ppf(0.975) / 100, abs=0.011)


def test_interval_follows_the_seed():
    values = list(np.random.default_rng(0).random(50))
    first = bootstrap_interval(values, num_samples=200, seed=1)
    assert bootstrap_interval(values, num_samples=200, seed=1) == first
    assert bootstrap_interval(values, num_samples=200, seed=2) != first


def test_interval_does_not_depend_on_the_size_of_blocks(monkeypatch):
    values = [0.0, 1.0, 1.0, 5.0]
    whole = bootstrap_interval(values, num_samples=100, seed=0)
    monkeypatch.setattr("pixelis.evaluation.intervals._BLOCK", 28)
    assert bootstrap_interval(values, num_samples=100, seed=0) == whole


def test_interval_covers_the_truth_about_as_often_as_its_level():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = list((generator.random(60) < 0.6).astype(float))
        low, high = bootstrap_interval(values, num_samples=300, seed=trial)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_interval_lies_within_the_values(values):
    low, high = bootstrap_interval(values, num_samples=50, seed=0)
    slack = 1e-9
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_interval_of_equal_values_has_no_width_and_of_none_is_refused():
    assert bootstrap_interval([1.0] * 5, num_samples=10, seed=0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one value, got none"):
        bootstrap_interval([], num_samples=10, seed=0)


def test_a_ratio_is_parts_over_wholes():
    score = compute_ratio([(1, 4), (3, 4), None, (0, 0)], num_samples=200, seed=0)
    assert (score.value, score.num) == (0.5, 2)
    assert 0.25 <= score.low <= score.value <= score.high <= 0.75
    # Examples with larger wholes weigh more.
    score = compute_ratio([(0, 1)] * 50 + [(9, 9)] * 50, num_samples=500, seed=0)
    assert score.value == pytest.approx(0.9) and score.low < 0.9 < score.high


def test_a_ratio_with_wholes_of_one_is_the_mean():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    low, high = bootstrap_interval(values, num_samples=300, seed=3)
    ratio = compute_ratio([(v, 1) for v in values], num_samples=300, seed=3)
    assert ratio == Score(pytest.approx(0.6), low, high, 5)


def test_a_ratio_without_wholes_is_none_and_left_out_of_the_table():
    assert compute_ratio([None, (0, 0)], num_samples=10, seed=0) is None
    assert compute_ratio([], num_samples=10, seed=0) is None
    fractions = {"a": [(1, 1), None, None], "b": [None, None, None]}
    groups = {"all": [0, 1, 2], "late": [1, 2]}
    table = ratio_table(fractions, groups, num_samples=10, seed=0)
    assert table == {"all": {"a": Score(1.0, 1.0, 1.0, 1)}}
