from dataclasses import replace
from math import sqrt

import pytest

from pixelis.evaluation.evaluate import summarise
from pixelis.evaluation.intervals import Score, difference_score, mean_score, share_score
from pixelis.evaluation.metrics import (
    MAX_COUNT_ERROR,
    Comparison,
    compute_rates,
    correct_answers,
    count_errors,
    failure_shares,
    group_indices,
    holm_corrected,
    paired_comparison,
    parse_count,
    score_table,
)
from tests.evaluation.handmade import make_example, make_rollout, make_turn


def test_measures_without_a_value_are_left_out_of_the_table():
    fractions = {"a": [(1, 1), None, None], "b": [None, None, None]}
    groups = {"all": [0, 1, 2], "late": [1, 2]}
    assert score_table(fractions, groups) == {"all": {"a": Score(1.0, None, 1)}}


def test_shares_and_mean_numbers_of_steps_have_intervals_of_their_own():
    fractions = {"steps_to_answer": [(0, 1), (1, 1)] * 10, "valid_call_rate": [(0, 1), (1, 1)] * 10}
    scores = score_table(fractions, {"all": range(20)})["all"]
    assert scores["steps_to_answer"] == mean_score([0, 1] * 10)
    assert scores["valid_call_rate"] == share_score([(0, 1), (1, 1)] * 10)
    assert scores["steps_to_answer"] != scores["valid_call_rate"]


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


def test_accuracies_and_rates_by_group(examples):
    rollouts = answer_all(examples, ["1", "XY", "2", None, "cd"])
    evaluation = summarise(rollouts, examples)
    assert {name: (s.value, s.num) for name, s in evaluation.accuracy.items()} == {
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
    assert {s.interval for s in evaluation.accuracy.values()} == {None}  # of few examples
    assert evaluation.rates["hard"] == compute_rates(rollouts[3:])
    assert list(evaluation.rates)[:3] == ["simple", "hard", "all"]


def test_rollouts_of_other_examples_are_refused(examples):
    rollouts = answer_all(examples, ["1"] * 5)
    for wrong in (rollouts[:4], rollouts[::-1]):
        with pytest.raises(AssertionError, match="the same ids in the same order"):
            correct_answers(wrong, examples)


def test_paired_comparison(examples):
    base = answer_all(examples, ["1", None, None, None, None])
    adapter = answer_all(examples, ["9", "AB", "2", None, "CD"])
    compared = paired_comparison(base, adapter, examples)
    simple, hard, whole = compared["simple"], compared["hard"], compared["all"]
    assert (simple.num_gained, simple.num_lost) == (2, 1)
    assert simple.gain.value == pytest.approx(1 / 3)
    assert simple.p_value == pytest.approx(1.0)
    assert (hard.num_gained, hard.num_lost, hard.gain.value) == (1, 0, 0.5)
    assert (whole.num_gained, whole.num_lost) == (3, 1)
    # P(at most 1 or at least 3 of 4 fair coins) = 10/16.
    assert whole.p_value == pytest.approx(10 / 16)


def test_comparison_of_equals_and_of_many_gains(examples):
    same = answer_all(examples, ["1", None, None, None, "CD"])
    equal = paired_comparison(same, same, examples)["all"]
    assert (equal.gain, equal.p_value) == (Score(0.0, None, 5), 1.0)
    many = [make_example(i) for i in range(12)]
    base, adapter = answer_all(many, ["blue"] * 12), answer_all(many, ["red"] * 12)
    better = paired_comparison(base, adapter, many)["simple"]
    assert better.p_value == pytest.approx(2 * 0.5**12)
    assert better.gain == difference_score(12, 0, 12)


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


def test_p_values_are_corrected_for_their_number_as_holm_does():
    # 5 * .01, 4 * .02, 3 * .03, then 2 * .04 = .08, which may not be below .09, and 1 * .9.
    p_values = {"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02, "e": 0.9}
    pairs = {n: Comparison(Score(0.1, None, 9), 1, 0, p) for n, p in p_values.items()}
    corrected = holm_corrected(pairs)
    assert list(corrected) == list(pairs)
    expected = {"a": 0.05, "b": 0.08, "c": 0.09, "d": 0.09, "e": 0.9}
    assert {n: pair.p_value for n, pair in corrected.items()} == pytest.approx(expected)
    assert replace(corrected["b"], p_value=0.02) == pairs["b"]
    (pair,) = holm_corrected({"a": pairs["a"]}).values()
    assert pair.p_value == 0.01


def test_rates_are_means_over_rollouts():
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


def test_failures_are_counted_by_kind():
    kinds = ("cut_off", "cut_off", "", "unknown_operation")
    turns = [replace(make_turn("call"), failure=kind) for kind in kinds]
    rollouts = [make_rollout(make_example(), "red", t) for t in (turns, turns[2:])]
    rates = compute_rates(rollouts)
    failures = {name: rate for name, rate in rates.items() if name.startswith("failure") and rate}
    assert failures == {"failure_cut_off": 1, "failure_unknown_operation": 1}
    shares = {kind: score.value for kind, score in failure_shares(rollouts).items() if score.value}
    assert shares == {"cut_off": 0.5, "unknown_operation": 1}


@pytest.mark.parametrize(
    ("answer", "count"),
    [("4", 4), ("Four", 4), (" fifteen ", 15), ("4.0", 4), ("1,000", 1000), ("sixteen", None),
     ("3 or 4", None), ("three dogs", None), ("", None), (None, None)],
)  # fmt: skip
def test_count_of_an_answer(answer, count):
    assert parse_count(answer) == count


def test_count_errors_are_root_mean_squares_and_a_missing_number_counts_as_0():
    truths = ("4", "2", "3", "5")
    groups = ("simple", "simple", "complex", "complex")
    pairs = zip(truths, groups, strict=True)
    examples = [make_example(i, truth=t, difficulty=g) for i, (t, g) in enumerate(pairs)]
    rollouts = answer_all(examples, ("four", "5", None, "many"))
    errors = count_errors(rollouts, examples)
    values = {group: (score.value, missing) for group, (score, missing) in errors.items()}
    assert values == {
        "simple": (pytest.approx(sqrt(9 / 2)), 0),
        "complex": (pytest.approx(sqrt(34 / 2)), 2),
        "all": (pytest.approx(sqrt(43 / 4)), 2),
    }
    score, _ = errors["simple"]
    assert (score.interval, score.num) == (None, 2)


def test_the_interval_of_count_errors_is_the_root_of_that_of_the_mean_square():
    examples = [make_example(i, truth="4") for i in range(12)]
    rollouts = answer_all(examples, ["4", "5", "2"] * 4)
    score, _ = count_errors(rollouts, examples)["all"]
    low, high = mean_score([0, 1, 4] * 4).interval
    assert score.value == pytest.approx(sqrt(5 / 3))
    assert score.interval == pytest.approx((sqrt(low), sqrt(high)))
    right, _ = count_errors(answer_all(examples, ["4"] * 12), examples)["all"]
    assert right == Score(0.0, None, 12)


def test_one_count_error_is_bounded_and_a_truth_that_is_no_number_is_named():
    example = make_example(truth="1")
    rollout = make_rollout(example, "1e300")
    score, _ = count_errors([rollout], [example])["all"]
    assert score.value == MAX_COUNT_ERROR
    with pytest.raises(ValueError, match=r"must be a number, got 'red' \(example e0\)"):
        count_errors([rollout], [make_example(truth="red")])
