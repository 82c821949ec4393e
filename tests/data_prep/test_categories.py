import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data.example import DIFFICULTIES
from pixelis.data_prep.grading import (
    categorise_by_percentiles,
    categorise_by_thresholds,
    observed_thresholds,
)
from pixelis.errors import ConfigError

TIED = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=80)


def by_percentiles(drawn, percentiles=(33, 66)):
    return categorise_by_percentiles(
        [score / 3 for score, _ in drawn],
        groups=[group for _, group in drawn],
        ties=[(index * 7919 % 101, index) for index in range(len(drawn))],
        percentiles=percentiles,
    )


@given(TIED)
def test_shares_are_exact_with_ties(drawn):
    found = by_percentiles(drawn)
    for group in "ab":
        mine = [name for name, (_, g) in zip(found, drawn, strict=True) if g == group]
        n = len(mine)
        first, second = round(n * 0.33), round(n * 0.66)
        expected = [first, second - first, n - second]
        assert [mine.count(name) for name in DIFFICULTIES] == expected


@given(TIED)
def test_observed_cuts_lie_between_the_categories(drawn):
    scores = [score / 3 for score, _ in drawn]
    groups = [group for _, group in drawn]
    categories = by_percentiles(drawn)
    cuts = observed_thresholds(scores, groups, categories)
    assert list(cuts) == sorted(set(groups))
    for score, group, category in zip(scores, groups, categories, strict=True):
        first, second = cuts[group]
        place = DIFFICULTIES.index(category)
        assert first is None or (score <= first if place == 0 else score >= first)
        assert second is None or (score <= second if place < 2 else score >= second)


def test_observed_cuts_by_hand():
    scores = [0.1, 0.2, 0.4, 0.8, 0.5]
    categories = ["simple", "simple", "medium", "hard", "simple"]
    assert observed_thresholds(scores, ["a"] * 4 + ["b"], categories) == {
        "a": (pytest.approx(0.3), pytest.approx(0.6)),
        "b": (None, None),
    }
    # Without a medium both cuts are the same gap.
    assert observed_thresholds([0.0, 1.0], ["a", "a"], ["simple", "hard"]) == {"a": (0.5, 0.5)}
    assert observed_thresholds([], [], []) == {}


@given(
    st.lists(st.floats(0, 1), max_size=40),
    st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_thresholds_cut_where_they_are(scores, thresholds):
    first, second = thresholds
    for score, name in zip(scores, categorise_by_thresholds(scores, thresholds), strict=True):
        expected = "simple" if score < first else "medium" if score < second else "hard"
        assert name == expected


@pytest.mark.parametrize("thresholds", [[0.5], [0.6, 0.4], [0.5, 0.5], [-0.1, 0.5], [0.5, 1.1]])
def test_thresholds_that_are_none(thresholds):
    expected = f"difficulty.thresholds must be two rising numbers in [0, 1], got {thresholds}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        categorise_by_thresholds([0.5], thresholds)
