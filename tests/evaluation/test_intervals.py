import pytest

from pixelis.evaluation.intervals import (
    Score,
    bootstrap_interval,
    compute_ratio,
    ratio_table,
)


def test_a_ratio_is_parts_over_wholes():
    score = compute_ratio([(1, 4), (3, 4), None, (0, 0)], num_samples=200, seed=0)
    assert (score.value, score.num) == (0.5, 2)
    assert 0.25 <= score.low <= score.value <= score.high <= 0.75


def test_with_wholes_of_one_it_is_the_mean():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    low, high = bootstrap_interval(values, num_samples=300, seed=3)
    ratio = compute_ratio([(v, 1) for v in values], num_samples=300, seed=3)
    assert ratio == Score(pytest.approx(0.6), low, high, 5)


def test_long_examples_weigh_more():
    fractions = [(0, 1)] * 50 + [(9, 9)] * 50
    score = compute_ratio(fractions, num_samples=500, seed=0)
    assert score.value == pytest.approx(0.9)
    assert score.low < 0.9 < score.high


def test_nothing_said_gives_nothing():
    assert compute_ratio([None, (0, 0)], num_samples=10, seed=0) is None
    assert compute_ratio([], num_samples=10, seed=0) is None


def test_table_leaves_out_what_says_nothing():
    fractions = {"a": [(1, 1), None, None], "b": [None, None, None]}
    groups = {"all": [0, 1, 2], "late": [1, 2]}
    table = ratio_table(fractions, groups, num_samples=10, seed=0)
    assert table == {"all": {"a": Score(1.0, 1.0, 1.0, 1)}}
