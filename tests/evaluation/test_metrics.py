from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pixelis.evaluation.metrics import (
    Score,
    accuracy_table,
    answers_match,
    bootstrap_interval,
    compute_rates,
    correct_answers,
    group_indices,
    normalise_text,
    paired_comparison,
    rate_table,
)
from tests.evaluation.handmade import make_example, make_rollout, make_turn


@pytest.mark.parametrize(
    ("predicted", "truth", "task", "right"),
    [
        ("red", "red", "attribute_recognition", True),
        ("  Red ", "red", "attribute_recognition", True),
        ("red\n circle", "red circle", "geometric_comparison", True),
        ("a red circle", "red circle", "geometric_comparison", False),
        ("red", "red circle", "geometric_comparison", False),
        ("red.", "red", "attribute_recognition", False),
        ("", "red", "attribute_recognition", False),
        (None, "red", "attribute_recognition", False),
        ("3", "3", "object_counting", True),
        ("3.0", "3", "object_counting", True),
        ("+3", "3", "object_counting", True),
        ("03", "3", "object_counting", True),
        (" 3 ", "3", "object_counting", True),
        ("three", "3", "object_counting", False),
        ("3 objects", "3", "object_counting", False),
        ("33", "3", "object_counting", False),
        ("-3", "3", "object_counting", False),
        ("3e0", "3", "object_counting", True),
        ("٣", "3", "object_counting", False),
        ("nan", "nan", "object_counting", True),
        ("AB", "ab", "text_extraction", True),
        ("AB  CD", "AB CD", "text_extraction", True),
        ("CD AB", "AB CD", "text_extraction", False),
        ("ABCD", "AB CD", "text_extraction", False),
        ("37.0", "37", "text_extraction", False),
        ("037", "37", "text_extraction", False),
        ("2.50", "2.5", "a task of one's own", True),
        ("Straße", "STRASSE", "a task of one's own", True),
    ],
)
def test_answers_match(predicted, truth, task, right):
    assert answers_match(predicted, make_example(truth=truth, task=task)) is right


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_text(normalise_text(text))
    assert normalise_text(once) == once
    assert answers_match(text, make_example(truth=text))


def test_interval_is_the_percentiles_of_the_resampled_means():
    # The mean of resampled zeros and ones is binomial: its quantiles are known.
    values = [1.0] * 30 + [0.0] * 70
    low, high = bootstrap_interval(values, num_samples=20_000, seed=0)
    assert low == pytest.approx(binom(100, 0.3).ppf(0.025) / 100, abs=0.011)
    assert high == pytest.approx(binom(100, 0.3).ppf(0.975) / 100, abs=0.011)


def test_interval_follows_seed_and_level():
    values = list(np.random.default_rng(0).random(50))
    first = bootstrap_interval(values, num_samples=200, seed=1)
    assert bootstrap_interval(values, num_samples=200, seed=1) == first
    assert bootstrap_interval(values, num_samples=200, seed=2) != first
    low, high = bootstrap_interval(values, num_samples=200, seed=1, level=0.5)
    assert first[0] < low < high < first[1]


def test_interval_does_not_depend_on_how_it_is_computed(monkeypatch):
    values = [0.0, 1.0, 1.0, 5.0]
    whole = bootstrap_interval(values, num_samples=100, seed=0)
    monkeypatch.setattr("pixelis.evaluation.intervals._BLOCK", 28)
    assert bootstrap_interval(values, num_samples=100, seed=0) == whole


def test_interval_covers_the_truth_about_as_often_as_it_says():
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


def test_equal_values_have_no_width():
    assert bootstrap_interval([1.0] * 5, num_samples=10, seed=0) == (1.0, 1.0)


def test_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one value, got none"):
        bootstrap_interval([], num_samples=10, seed=0)


@pytest.fixture
def examples():
    plan = [
        ("simple", "object_counting", "1"),
        ("simple", "text_extraction", "AB"),
        ("simple", "object_counting", "2"),
        ("hard", "object_counting", "3"),
        ("hard", "text_extraction", "CD"),
    ]
    return [
        make_example(i, difficulty=difficulty, task=task, truth=truth)
        for i, (difficulty, task, truth) in enumerate(plan)
    ]


def answer_all(examples, answers):
    return [make_rollout(e, a) for e, a in zip(examples, answers, strict=True)]


def test_groups(examples):
    assert group_indices(examples) == {
        "simple": [0, 1, 2],
        "hard": [3, 4],
        "all": [0, 1, 2, 3, 4],
        "task/object_counting": [0, 2, 3],
        "task/text_extraction": [1, 4],
        "type/positive": [0, 1, 2, 3, 4],
        "simple/object_counting": [0, 2],
        "simple/text_extraction": [1],
        "hard/object_counting": [3],
        "hard/text_extraction": [4],
    }


def test_a_task_may_be_named_like_a_difficulty():
    groups = group_indices([make_example(task="hard"), make_example(1, task="all")])
    assert groups["all"] == [0, 1]
    assert "hard" not in groups
    assert groups["task/hard"] == [0]


def test_accuracy_table(examples):
    rollouts = answer_all(examples, ["1", "XY", "2", None, "cd"])
    table = accuracy_table(rollouts, examples, num_samples=200, seed=0)
    values = {name: (score.value, score.num) for name, score in table.items()}
    assert values == {
        "simple": (pytest.approx(2 / 3), 3),
        "hard": (0.5, 2),
        "all": (pytest.approx(3 / 5), 5),
        "task/object_counting": (pytest.approx(2 / 3), 3),
        "task/text_extraction": (0.5, 2),
        "type/positive": (pytest.approx(3 / 5), 5),
        "simple/object_counting": (1.0, 2),
        "simple/text_extraction": (0.0, 1),
        "hard/object_counting": (0.0, 1),
        "hard/text_extraction": (1.0, 1),
    }
    assert all(score.low <= score.value <= score.high for score in table.values())
    assert table == accuracy_table(rollouts, examples, num_samples=200, seed=0)


def test_rollouts_of_other_examples_are_refused(examples):
    rollouts = answer_all(examples, ["1"] * 5)
    for wrong in (rollouts[:4], rollouts[::-1]):
        with pytest.raises(ValueError, match="the same ids in the same order"):
            correct_answers(wrong, examples)


def test_paired_comparison(examples):
    base = answer_all(examples, ["1", None, None, None, None])
    adapter = answer_all(examples, ["9", "AB", "2", None, "CD"])
    found = paired_comparison(base, adapter, examples, num_samples=200, seed=0)
    simple, hard, whole = found["simple"], found["hard"], found["all"]
    assert (simple.num_gained, simple.num_lost) == (2, 1)
    assert simple.gain.value == pytest.approx(1 / 3)
    assert simple.p_value == pytest.approx(1.0)
    assert (hard.num_gained, hard.num_lost, hard.gain.value) == (1, 0, 0.5)
    assert (whole.num_gained, whole.num_lost) == (3, 1)
    # P(at most 1 or at least 3 of 4 fair coins) = 10/16.
    assert whole.p_value == pytest.approx(10 / 16)


def test_comparison_of_equals_finds_nothing(examples):
    same = answer_all(examples, ["1", None, None, None, "CD"])
    found = paired_comparison(same, same, examples, num_samples=50, seed=0)["all"]
    assert (found.gain, found.p_value) == (Score(0.0, 0.0, 0.0, 5), 1.0)


def test_comparison_of_many_gains_is_significant():
    examples = [make_example(i) for i in range(12)]
    base, adapter = answer_all(examples, ["blue"] * 12), answer_all(examples, ["red"] * 12)
    found = paired_comparison(base, adapter, examples, num_samples=50, seed=0)["simple"]
    assert found.p_value == pytest.approx(2 * 0.5**12)


def acting_rollouts():
    box, other = {"bbox": [0, 0, 28, 28]}, {"bbox": [1, 1, 3, 3]}
    good, bad = {"text": "AB"}, {"error": "no text"}
    first = make_rollout(
        make_example(0),
        "red",
        [
            make_turn("call", result=good, arguments=box),
            make_turn("call", result=bad, arguments=other),
            make_turn("call", result=good, arguments=box),
            make_turn("answer"),
        ],
    )
    second = make_rollout(
        make_example(1, difficulty="hard"),
        None,
        [make_turn("error", result={"error": "neither"}), make_turn("call", arguments=box)],
        outcome="max_operations",
    )
    return [first, second]


def test_rates():
    assert compute_rates(acting_rollouts()) == {
        "mean_operations": 1.5,
        "mean_new_tokens": 30,
        "outcome_answered": 0.5,
        "outcome_max_operations": 0.5,
        "outcome_no_answer": 0,
        "failure_no_call": 0,
        "failure_malformed_call": 0,
        "failure_cut_off": 0,
        "failure_repeated_call": 0,
        "failure_unknown_operation": 0,
        "failure_wrong_arguments": 0,
        "failure_failed_operation": 0,
    }


def test_failures_are_counted_a_rollout_by_kind():
    kinds = ("cut_off", "cut_off", "", "unknown_operation")
    turns = [replace(make_turn("call"), failure=kind) for kind in kinds]
    rates = compute_rates([make_rollout(make_example(), "red", t) for t in (turns, turns[2:])])
    assert rates["failure_cut_off"] == 1
    assert rates["failure_unknown_operation"] == 1
    assert rates["failure_malformed_call"] == 0


def test_rate_table():
    examples = [make_example(0), make_example(1, difficulty="hard")]
    table = rate_table(acting_rollouts(), examples)
    assert table["simple"]["mean_operations"] == 3
    assert table["hard"]["outcome_max_operations"] == 1
    assert table["all"] == compute_rates(acting_rollouts())
    assert replace(acting_rollouts()[0], outcome="x").num_repeated == 1
