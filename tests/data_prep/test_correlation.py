import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data_prep.grading import choose_spread, rank_correlation

UNDEFINED = {"spearman": None, "p_value": None}


def test_correlations_by_hand():
    scores = [0.1, 0.2, 0.3, 0.4]
    rising = rank_correlation(scores, [1, 5, 6, 100])
    assert rising["spearman"] == pytest.approx(1.0)
    assert rising["num_samples"] == 4
    assert rank_correlation(scores, [4, 3, 2, 1])["spearman"] == pytest.approx(-1.0)
    # 1 - 6 (1 + 1) / (4 (16 - 1))
    mixed = rank_correlation(scores, [2, 1, 3, 4])
    assert mixed["spearman"] == pytest.approx(0.8)
    assert 0 < mixed["p_value"] < 1


def test_an_infinite_error_is_the_largest():
    assert rank_correlation([1, 2, 3], [5, 6, math.inf])["spearman"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("scores", "errors"),
    [
        ([], []),
        ([0.1, 0.2], [1, 2]),
        ([0.5, 0.5, 0.5], [1, 2, 3]),
        ([0.1, 0.2, 0.3], [1, 1, 1]),
        ([0.1, 0.2, 0.3], [1, math.inf, math.nan]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_undefined_is_said_to_be(scores, errors):
    assert rank_correlation(scores, errors) == UNDEFINED | {"num_samples": len(scores)}


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(0, 40), st.integers(0, 9))
def test_a_choice_is_spread_over_the_tasks(tasks, limit, seed):
    chosen = choose_spread(tasks, limit, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(tasks))
    assert chosen == choose_spread(tasks, limit, seed)
    taken, there = Counter(tasks[index] for index in chosen), Counter(tasks)
    most = max(taken.values(), default=0)
    assert all(taken[task] == there[task] or taken[task] >= most - 1 for task in there)


def test_another_seed_chooses_others():
    assert choose_spread(["a"] * 500, 20, 0) != choose_spread(["a"] * 500, 20, 1)
