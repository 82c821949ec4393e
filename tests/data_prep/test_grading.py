"""Categories and correlation of a data set whose scores are known."""

import math
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.config import DataPrepConfig, DifficultyConfig
from pixelis.data.example import DIFFICULTIES
from pixelis.data_prep import grading
from pixelis.data_prep.difficulty import COMPONENTS
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.grading import (
    choose_spread,
    correlate,
    grade,
    observed_thresholds,
    rank_correlation,
)

CONFIG = DataPrepConfig()


def facts_of(*rows):
    """Facts of examples given as task, split, score and what breaks ties."""
    rows = [(*row, *([0] * (4 - len(row))), key) for key, row in enumerate(rows)]
    return pd.DataFrame(rows, columns=["task", "split", "score", "num_objects", "key"])


def with_difficulty(**changes):
    return CONFIG.replace(difficulty=CONFIG.difficulty.replace(**changes))


def test_percentiles_are_within_task_and_split():
    facts = facts_of(
        *(
            (task, split, base + number / 1000)
            for task, base in (("easy", 0.1), ("hard", 0.8))
            for split in ("train", "test")
            for number in range(100)
        )
    )
    thresholds = grade(facts, CONFIG)
    counts = Counter(zip(facts["task"], facts["split"], facts["difficulty"], strict=True))
    for task in ("easy", "hard"):
        for split in ("train", "test"):
            assert [counts[task, split, name] for name in DIFFICULTIES] == [33, 33, 34]
    assert thresholds["method"] == "percentiles"
    assert set(thresholds["values"]) == {"easy", "hard"}
    low, high = thresholds["values"]["easy"]
    assert 0.1 < low < high < 0.2


def test_all_tasks_together_where_categories_are_no_matter():
    scores = (("a", 0.1), ("b", 0.5), ("c", 0.9))
    facts = facts_of(*[(task, "train", score) for task, score in scores] * 33)
    thresholds = grade(facts, CONFIG.replace(split_by_category=False))
    assert list(thresholds["values"]) == ["all"]
    found = set(zip(facts["task"], facts["difficulty"], strict=True))
    assert found >= {("a", "simple"), ("c", "hard")}


def test_equal_scores_are_cut_in_exact_shares_by_objects_first():
    facts = facts_of(*[("a", "train", 0.5, number % 10) for number in range(100)])
    backwards = facts[::-1].reset_index(drop=True)
    for each in (facts, backwards):
        grade(each, CONFIG)
    found = facts["difficulty"].tolist()
    assert [found.count(name) for name in DIFFICULTIES] == [33, 33, 34]
    spans = facts.groupby("difficulty")["num_objects"].agg(["min", "max"])
    assert spans["max"]["simple"] <= spans["min"]["medium"]
    assert spans["max"]["medium"] <= spans["min"]["hard"]
    assert backwards["difficulty"].tolist() == found[::-1], "the order is no matter"


@pytest.mark.parametrize(
    ("scores", "undivided"),
    [
        ({"a": [0.05] * 12}, {"a"}),
        ({"a": [0.05] * 40, "b": [0.9] * 40}, {"a", "b"}),  # they differ between tasks alone
        ({"a": [0.05] * 40, "b": [n / 40 for n in range(40)]}, {"a"}),
        ({"a": [0.05] * 12 + [0.6]}, {"a"}),
        ({"a": [0.01] * 5 + [0.05] * 30 + [0.6] * 5}, {"a"}),  # both cuts lie in one tie
        ({"a": [0.05] * 20 + [n / 20 for n in range(1, 21)]}, set()),  # one cut does
        ({"a": [0.1, 0.2] * 20}, set()),
        ({"a": [0.3], "b": [0.3, 0.3]}, {"a", "b"}),
        ({"a": [0.3, 0.4], "b": [0.3, 0.4, 0.5]}, set()),
    ],
)
def test_a_task_whose_scores_cannot_be_cut_is_simple_as_a_whole(scores, undivided):
    rows = [(task, "train", score) for task, values in scores.items() for score in values]
    places = [(task, ("train", "test")[n % 2], score) for n, (task, _, score) in enumerate(rows)]
    for facts in (facts_of(*rows), facts_of(*places)):
        thresholds = grade(facts, CONFIG)
        assert thresholds["undivided"] == sorted(undivided)
        for task in scores:
            found = set(facts["difficulty"][facts["task"] == task])
            assert (found == {"simple"}) == (task in undivided)
            assert (thresholds["values"][task] == [None, None]) == (task in undivided)


def test_all_tasks_together_may_be_cut_though_none_alone_can():
    facts = facts_of(*[(task, "train", score) for task, score in (("a", 0.1), ("b", 0.5))] * 20)
    together = CONFIG.replace(split_by_category=False)
    assert grade(facts, together)["undivided"] == []
    assert set(facts["difficulty"]) == set(DIFFICULTIES)
    same = facts_of(*[(task, "train", 0.1) for task in ("a", "b") * 20])
    assert grade(same, together)["undivided"] == ["all"]
    assert set(same["difficulty"]) == {"simple"}


def test_fixed_thresholds_are_the_same_for_every_task():
    facts = facts_of(*[("a", "train", score) for score in (0.0, 0.39, 0.4, 0.59, 0.6, 1.0)])
    thresholds = grade(facts, with_difficulty(method="thresholds", thresholds=(0.4, 0.6)))
    assert facts["difficulty"].tolist() == [name for name in DIFFICULTIES for _ in range(2)]
    assert thresholds == {"method": "thresholds", "values": {"all": [0.4, 0.6]}}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), min_size=1, max_size=80))
def test_observed_cuts_lie_between_the_categories(drawn):
    facts = facts_of(*[(task, "train", score / 3) for score, task in drawn])
    cuts = grade(facts, CONFIG)["values"]
    assert list(cuts) == sorted({task for _, task in drawn})
    for row in facts.itertuples():
        first, second = cuts[row.task]
        place = DIFFICULTIES.index(row.difficulty)
        assert first is None or (row.score <= first if place == 0 else row.score >= first)
        assert second is None or (row.score <= second if place < 2 else row.score >= second)


@pytest.mark.parametrize(
    ("scores", "difficulties", "cuts"),
    [
        ([0.1, 0.2, 0.4, 0.8], ["simple", "simple", "medium", "hard"], [0.3, 0.6]),
        ([0.0, 1.0], ["simple", "hard"], [0.5, 0.5]),  # both cuts are the same gap
        ([0.5], ["simple"], [None, None]),
    ],
)
def test_observed_cuts_by_hand(scores, difficulties, cuts):
    facts = pd.DataFrame({"score": scores, "difficulty": difficulties})
    assert observed_thresholds(facts) == [cut and pytest.approx(cut) for cut in cuts]


@pytest.mark.parametrize("scorer", ["composite", "model", "multi"])
def test_the_correlation_is_that_of_the_composite_score(scorer):
    examples = [
        generate_example(seed=0, index=n, task=task, sample_type="positive")
        for task in ("object_counting", "text_extraction")
        for n in range(3)
    ]
    weights = {name: getattr(DifficultyConfig(), name) for name in COMPONENTS}
    scores = grading.build_scorer("composite", weights=weights, task_weights=grading.TASK_WEIGHTS)
    values = [score.value for score in scores(examples)]
    for factor, expected in ((3, 1), (-1, -1)):
        config = with_difficulty(scorer=scorer)
        found = correlate(examples, config, lambda asked, by=factor: [by * v for v in values])
        assert found["spearman"] == pytest.approx(expected) and found["num_samples"] == 6


@pytest.mark.parametrize(
    ("scores", "errors", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], [1, 5, 6, 100], 1),
        ([0.1, 0.2, 0.3, 0.4], [4, 3, 2, 1], -1),
        ([0.1, 0.2, 0.3, 0.4], [2, 1, 3, 4], 0.8),  # 1 - 6 (1 + 1) / (4 (16 - 1))
        ([1, 2, 3], [5, 6, math.inf], 1),
        ([], [], None),
        ([0.1, 0.2], [1, 2], None),
        ([0.5, 0.5, 0.5], [1, 2, 3], None),
        ([0.1, 0.2, 0.3], [1, 1, 1], None),
        ([0.1, 0.2, 0.3], [1, math.inf, math.nan], None),
    ],
)
@pytest.mark.filterwarnings("error")
def test_correlations_by_hand(scores, errors, expected):
    found = rank_correlation(scores, errors)
    assert found["num_samples"] == len(scores)
    assert found["spearman"] == (expected and pytest.approx(expected))
    assert (found["p_value"] is None) == (expected is None)


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(0, 40), st.integers(0, 9))
def test_a_choice_is_spread_over_the_tasks(tasks, limit, seed):
    facts = pd.DataFrame({"task": pd.Series(tasks, dtype=str)})
    chosen = choose_spread(facts, limit, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(tasks))
    assert chosen == choose_spread(facts, limit, seed)
    taken, there = Counter(tasks[index] for index in chosen), Counter(tasks)
    most = max(taken.values(), default=0)
    assert all(taken[task] == there[task] or taken[task] >= most - 1 for task in there)
