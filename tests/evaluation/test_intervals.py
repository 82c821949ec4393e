"""Intervals of shares, means and paired differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, ttest_1samp

from pixelis.evaluation.intervals import (
    MIN_EXAMPLES,
    Score,
    Z,
    difference_score,
    mean_score,
    share_score,
)


def answers(num_right, num):
    return share_score([(i < num_right, 1) for i in range(num)])


@pytest.mark.parametrize(
    ("num_right", "num"), [(0, 10), (10, 10), (1, 10), (0, 300), (300, 300), (145, 300), (41, 100)]
)
def test_the_interval_of_right_answers_is_wilsons(num_right, num):
    score = answers(num_right, num)
    expected = binomtest(num_right, num).proportion_ci(0.95, method="wilson")
    assert (score.value, score.num) == (num_right / num, num)
    assert score.interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_at_0_and_100_percent_an_interval_has_a_width_and_ends_there():
    assert answers(0, 10).interval == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert answers(10, 10).interval == (pytest.approx(0.7225, abs=1e-4), 1.0)


@pytest.mark.parametrize("num", [1, 2, MIN_EXAMPLES - 1])
def test_few_examples_have_no_interval(num):
    assert answers(num, num) == Score(1.0, None, num)
    assert answers(0, num) == Score(0.0, None, num)
    assert difference_score(num, 0, num) == Score(1.0, None, num)
    assert mean_score([*range(num)]) == Score((num - 1) / 2, None, num)
    assert share_score([(1, 4)] * num) == Score(0.25, None, num)
    score = answers(num, num)
    assert (score.ends, score.metrics("a/b")) == ((None, None), {"a/b": 1.0})
    score = answers(MIN_EXAMPLES, MIN_EXAMPLES)
    assert score.metrics("a") == {"a": 1.0, "a_low": score.interval[0], "a_high": 1.0}


@pytest.mark.parametrize(("share", "num"), [(0.02, 40), (0.5, 10), (0.6, 60), (0.97, 120)])
def test_an_interval_of_right_answers_covers_the_truth_about_as_often_as_its_level(share, num):
    covered = sum(
        binom(num, share).pmf(num_right)
        for num_right in range(num + 1)
        if answers(num_right, num).interval[0] <= share <= answers(num_right, num).interval[1]
    )
    assert 0.92 <= covered <= 0.99


def test_a_ratio_is_parts_over_wholes():
    score = share_score([(1, 4), (3, 4), None, (0, 0)])
    assert (score.value, score.num) == (0.5, 2)
    # Examples with larger wholes weigh more.
    score = share_score([(0, 1)] * 50 + [(9, 9)] * 50)
    assert score.value == pytest.approx(0.9) and score.interval[0] < 0.9 < score.interval[1]
    assert share_score([None, (0, 0)]) is None and share_score([]) is None


def test_calls_of_one_rollout_count_as_far_as_they_are_independent():
    def width(pairs):
        low, high = share_score(pairs).interval
        return high - low

    # 40 rollouts of 5 calls, of which half are valid.
    alike = [(5, 5)] * 20 + [(0, 5)] * 20
    assert share_score(alike).interval == pytest.approx(answers(20, 40).interval)
    evenly = [(2, 5)] * 20 + [(3, 5)] * 20
    assert share_score(evenly).interval == pytest.approx(answers(100, 200).interval)
    mixed = [(5, 5), (3, 5), (2, 5), (0, 5)] * 10
    assert width(evenly) < width(mixed) < width(alike)
    # Where nothing differs, each example counts once.
    assert share_score([(5, 5)] * 40).interval == answers(40, 40).interval
    assert share_score([(1, 3), (2, 6)] * 5).interval == share_score([(1, 3)] * 10).interval


def test_an_interval_of_ratios_covers_the_truth_about_as_often_as_its_level():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        # Each rollout has a share of its own, and 1 to 8 calls.
        shares, calls = generator.beta(4, 1, 40), generator.integers(1, 9, 40)
        valid = generator.binomial(calls, shares)
        low, high = share_score(list(zip(valid, calls, strict=True))).interval
        covered += low <= 0.8 <= high
    assert 0.92 <= covered / 400 <= 0.98


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=10, max_size=40))
def test_an_interval_of_a_ratio_has_a_width_and_holds_its_value(pairs):
    score = share_score([(min(pair), max(pair)) for pair in pairs])
    if score is not None and score.interval is not None:
        low, high = score.interval
        assert 0 <= low <= score.value <= high <= 1 and low < high


def test_the_interval_of_a_mean_is_student_s_t_and_not_below_0():
    values = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    score, expected = mean_score(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (score.value, score.num) == (4, 11)
    assert score.interval == pytest.approx((expected.low, expected.high))
    assert mean_score([0] * 11 + [7]).interval[0] == 0
    assert mean_score([2] * 300) == Score(2.0, None, 300)


def tango(difference, gained, lost, num):
    """The score statistic, with the most likely table under a true difference found by search."""

    def loss(share):  # of lost examples
        shares = (share + difference, share, 1 - 2 * share - difference)
        counts = (gained, lost, num - gained - lost)
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    bounds = max(0.0, -difference), (1 - difference) / 2
    share = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    variance = num * (2 * share + difference - difference**2)
    return (gained - lost - num * difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("gained", "lost", "num"),
    [(1, 7, 21), (0, 1, 44), (5, 0, 100), (20, 20, 100), (12, 0, 12), (0, 11, 12), (40, 9, 900)],
)
def test_the_interval_of_a_paired_difference_is_where_tangos_statistic_is_z(gained, lost, num):
    score = difference_score(gained, lost, num)
    low, high = score.interval
    assert (score.value, score.num) == ((gained - lost) / num, num)
    assert tango(low, gained, lost, num) == pytest.approx(Z, abs=1e-3)
    if gained < num:
        assert tango(high, gained, lost, num) == pytest.approx(-Z, abs=1e-3)
    else:
        assert high == 1


def test_the_interval_of_a_paired_difference_in_the_literature():
    # The airway data of Fagerland, Lydersen and Laake (2014): 1 and 7 of 21 patients changed.
    assert difference_score(1, 7, 21).interval == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("num", [10, 40, 900])
def test_models_that_answer_alike_have_an_interval_around_0(num):
    score, end = difference_score(0, 0, num), Z**2 / (num + Z**2)
    assert score.value == 0 and score.interval == pytest.approx((-end, end))


@given(st.integers(10, 400), st.floats(0, 1), st.floats(0, 1))
def test_the_interval_of_a_paired_difference_has_a_width_and_a_mirror(num, differ, won):
    gained = round(num * differ * won)
    lost = round(num * differ) - gained
    score = difference_score(gained, lost, num)
    low, high = score.interval
    assert -1 <= low <= score.value + 1e-9 and score.value - 1e-9 <= high <= 1 and low < high
    mirrored = difference_score(lost, gained, num).interval
    assert mirrored == pytest.approx((-high, -low))
    # No single example decides: with one of them, 0 is inside.
    if gained + lost == 1:
        assert low < 0 < high


def test_an_interval_of_a_paired_difference_covers_the_truth_about_as_often_as_its_level():
    generator = np.random.default_rng(0)
    covered = 0
    for gained, lost, _ in generator.multinomial(60, (0.2, 0.1, 0.7), 400):
        low, high = difference_score(int(gained), int(lost), 60).interval
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.98
