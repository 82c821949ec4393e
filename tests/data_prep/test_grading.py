"""Categories, correlation and figures of a data set whose scores are known."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.config import DataPrepConfig, DifficultyConfig
from pixelis.curriculum.difficulty import COMPONENTS
from pixelis.data.example import DIFFICULTIES
from pixelis.data_prep import grading
from pixelis.data_prep.columns import Columns
from pixelis.data_prep.figures import EXAMPLES_IN_ROW
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.grading import (
    categorise,
    categorise_by_percentiles,
    categorise_by_thresholds,
    choose_examples,
    choose_spread,
    correlate,
    draw_figures,
    observed_thresholds,
    rank_correlation,
)
from pixelis.data_prep.rows import RowInfo

CONFIG = DataPrepConfig()
PARTS = dict.fromkeys(COMPONENTS, 0.5)


def columns_of(*rows):
    """Columns of examples given as task, split, score and what breaks ties."""
    columns = Columns()
    for key, (task, split, score, *objects) in enumerate(rows):
        columns.add(RowInfo(key, task, "positive", split, score, PARTS, *(objects or [0])))
    return columns


def with_difficulty(**changes):
    return CONFIG.replace(difficulty=CONFIG.difficulty.replace(**changes))


def test_percentiles_are_within_task_and_split():
    rows = [
        (task, split, base + number / 1000)
        for task, base in (("easy", 0.1), ("hard", 0.8))
        for split in ("train", "test")
        for number in range(100)
    ]
    found, thresholds = categorise(columns_of(*rows), CONFIG)
    counts = Counter((*row[:2], difficulty) for row, difficulty in zip(rows, found, strict=True))
    for task in ("easy", "hard"):
        for split in ("train", "test"):
            assert [counts[task, split, name] for name in DIFFICULTIES] == [33, 33, 34]
    assert thresholds["method"] == "percentiles"
    assert set(thresholds["values"]) == {"easy", "hard"}
    low, high = thresholds["values"]["easy"]
    assert 0.1 < low < high < 0.2


def test_all_tasks_together_where_categories_are_no_matter():
    rows = [(task, "train", score) for task, score in (("a", 0.1), ("b", 0.5), ("c", 0.9))] * 33
    config = CONFIG.replace(split_by_category=False)
    found, thresholds = categorise(columns_of(*rows), config)
    assert list(thresholds["values"]) == ["all"]
    assert {(row[0], difficulty) for row, difficulty in zip(rows, found, strict=True)} >= {
        ("a", "simple"),
        ("c", "hard"),
    }


def test_equal_scores_are_cut_in_exact_shares_by_objects_first():
    rows = [("a", "train", 0.5, number % 10) for number in range(100)]
    found, _ = categorise(columns_of(*rows), CONFIG)
    assert [found.count(name) for name in DIFFICULTIES] == [33, 33, 34]
    objects = {
        name: [row[3] for row, difficulty in zip(rows, found, strict=True) if difficulty == name]
        for name in DIFFICULTIES
    }
    assert max(objects["simple"]) <= min(objects["medium"])
    assert max(objects["medium"]) <= min(objects["hard"])


def test_the_order_of_the_examples_is_no_matter():
    columns, backwards = Columns(), Columns()
    metas = [RowInfo(key, "a", "positive", "train", 0.5, PARTS, 0) for key in range(50)]
    for meta in metas:
        columns.add(meta)
    for meta in reversed(metas):
        backwards.add(meta)
    assert categorise(columns, CONFIG)[0] == categorise(backwards, CONFIG)[0][::-1]


def test_fixed_thresholds_are_the_same_for_every_task():
    rows = [("a", "train", score) for score in (0.0, 0.39, 0.4, 0.59, 0.6, 1.0)]
    config = with_difficulty(method="thresholds", thresholds=(0.4, 0.6))
    found, thresholds = categorise(columns_of(*rows), config)
    assert found == ["simple", "simple", "medium", "medium", "hard", "hard"]
    assert thresholds == {"method": "thresholds", "values": {"all": [0.4, 0.6]}}


@pytest.mark.parametrize("samples", [0, 4, 300])
def test_as_many_as_asked_for_are_compared_with_the_model(samples):
    columns = columns_of(*[(task, "train", 0.5) for task in "ab" for _ in range(20)])
    found = choose_examples(columns, ["simple"] * 40, with_difficulty(correlation_samples=samples))
    assert len(found["correlation"]) == min(samples, 40)
    tasks = Counter(index // 20 for index in found["correlation"])
    assert len(set(tasks.values())) <= 1, "as many of each task"


def test_examples_to_show_are_of_their_category_and_of_several_tasks():
    columns = columns_of(*[(task, "train", 0.5) for task in "abc" for _ in range(10)])
    difficulties = ["simple", "hard"] * 15
    found = choose_examples(columns, difficulties, CONFIG)
    assert found["medium"] == []
    for name in ("simple", "hard"):
        assert len(found[name]) == min(EXAMPLES_IN_ROW, 15)
        assert {difficulties[index] for index in found[name]} == {name}
        assert len({index // 10 for index in found[name]}) == min(EXAMPLES_IN_ROW, 3)
    assert choose_examples(columns, difficulties, CONFIG) == found


@pytest.fixture(scope="module")
def examples():
    return [
        generate_example(seed=0, index=n, task=task, sample_type="positive")
        for task in ("object_counting", "text_extraction")
        for n in range(3)
    ]


@pytest.mark.parametrize("scorer", ["composite", "model", "multi"])
def test_the_correlation_is_that_of_the_composite_score(examples, scorer):
    weights = {name: getattr(DifficultyConfig(), name) for name in COMPONENTS}
    scores = grading.build_scorer("composite", weights=weights, task_weights=grading.TASK_WEIGHTS)
    values = [score.value for score in scores(examples)]
    config = with_difficulty(scorer=scorer)
    found = correlate(examples, config, lambda asked: [3 * value for value in values])
    assert found["spearman"] == pytest.approx(1) and found["num_samples"] == 6
    found = correlate(examples, config, lambda asked: [-value for value in values])
    assert found["spearman"] == pytest.approx(-1)


@pytest.mark.parametrize("most", [1, 10])
def test_figures_are_drawn_of_few_and_of_many(tmp_path, monkeypatch, examples, most):
    monkeypatch.setattr(grading, "MAX_PLOTTED", most)
    columns = columns_of(*[("a", "train", number / 6) for number in range(6)])
    difficulties, thresholds = categorise(columns, CONFIG)
    wanted = choose_examples(columns, difficulties, CONFIG)
    chosen = dict(enumerate(examples))
    draw_figures(tmp_path, columns, difficulties, thresholds, wanted, chosen)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"difficulty.png", "examples.png"}


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
