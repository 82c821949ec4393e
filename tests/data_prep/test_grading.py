from collections import Counter

import pytest

from pixelis.config import DataPrepConfig, DifficultyConfig
from pixelis.curriculum.difficulty import COMPONENTS
from pixelis.data.example import DIFFICULTIES
from pixelis.data_prep import grading
from pixelis.data_prep.figures import EXAMPLES_IN_ROW
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.grading import categorise, choose_examples, correlate, draw_figures
from pixelis.data_prep.produce import Meta
from pixelis.data_prep.spool import Columns

CONFIG = DataPrepConfig()
PARTS = dict.fromkeys(COMPONENTS, 0.5)


def columns_of(*rows):
    """Columns of examples given as task, split, score and what breaks ties."""
    columns = Columns()
    for key, (task, split, score, *objects) in enumerate(rows):
        columns.add(Meta(key, task, "positive", split, score, PARTS, *(objects or [0])))
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
    metas = [Meta(key, "a", "positive", "train", 0.5, PARTS, 0) for key in range(50)]
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


def test_fixed_thresholds_may_leave_a_category_empty():
    found, _ = categorise(columns_of(("a", "train", 0.1)), with_difficulty(method="thresholds"))
    assert found == ["simple"]


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


def test_examples_that_the_model_cannot_read_are_no_obstacle(examples):
    found = correlate(examples, CONFIG, lambda asked: [float("inf")] * len(asked))
    assert (found["spearman"], found["p_value"]) == (None, None)


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
