from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data.chat import format_step
from pixelis.data_prep.generate import generate_example
from pixelis.evaluation.evaluate import EvaluationSettings, evaluate_model, summarise
from pixelis.evaluation.intervals import Score, mean_score, share_score
from pixelis.evaluation.measures import (
    JUDGED,
    call_fractions,
    compute_measures,
    correction_fractions,
    detection_fractions,
    first_sentence,
    majority_answer,
    num_valid_calls,
    operation_fractions,
    pass_at_k,
    sample_fractions,
)
from pixelis.evaluation.metrics import correct_answers
from pixelis.evaluation.rollout import planted_steps
from tests.evaluation.handmade import make_example, make_rollout, make_step, make_turn

BOX, OTHER = {"bbox": [0, 0, 28, 28]}, {"bbox": [1, 1, 3, 3]}
ERROR = {"error": "?"}
LIMITS = {"max_operations": 2, "max_new_tokens": 20, "batch_size": 8}


def call(arguments=BOX, operation="READ_TEXT", result=None, **more):
    result = {"text": "AB"} if result is None else result
    return make_turn("call", operation=operation, arguments=arguments, result=result, **more)


def rollout(*turns, number=0, **more):
    return make_rollout(make_example(number, **more), "red", turns)


@pytest.mark.parametrize(
    ("turns", "num"),
    [
        ([call()], 1),
        ([call(), call(failure="repeated_call")], 2),
        ([call(result=ERROR, failure="failed_operation")], 1),  # no result, but a valid call
        ([call(operation="READ_TXT", result=ERROR, failure="unknown_operation")], 0),
        ([call(None, result=ERROR, failure="wrong_arguments")], 0),
        ([call({"box": [0, 0, 1, 1]}, result=ERROR, failure="wrong_arguments")], 0),
        # Of the schema, but outside of the image; and the same again.
        ([call(OTHER, result=ERROR, failure="wrong_arguments"),
          call(OTHER, result=ERROR, failure="repeated_call")], 0),
        # At the limit nothing is run: the schema decides alone.
        ([make_turn("call", operation="READ_TEXT", arguments=BOX)], 1),
        ([make_turn("call", operation="READ_TEXT", arguments={"bbox": [0, 0, 1]})], 0),
        ([make_turn("call", operation="DRAW", arguments=BOX)], 0),
        ([make_turn("error", result=ERROR), make_turn("answer")], 0),
    ],
)  # fmt: skip
def test_number_of_valid_calls(turns, num):
    assert num_valid_calls(rollout(*turns)) == num


def test_call_rates_are_shares_of_acts_operations_and_calls():
    wrong = call(operation="DRAW", result=ERROR, failure="unknown_operation")
    limit = make_turn("call", operation="READ_TEXT", arguments=BOX)
    turns = [call(), wrong, call(failure="repeated_call"), make_turn("error", result=ERROR), limit]
    assert call_fractions(rollout(*turns)) == {
        "valid_call_rate": (3, 5),
        "well_formed_call_rate": (4, 5),
        "failed_operation_rate": (1, 3),
        "repeated_call_rate": (2, 4),
    }
    assert set(call_fractions(rollout(make_turn("answer"))).values()) == {None}


def test_measures_have_intervals_in_every_group():
    examples = [make_example(i) for i in range(10)]
    examples.append(make_example(10, difficulty="hard", task="object_counting"))
    half = [call(None, result=ERROR), call()]
    turns = [half if i % 2 else [call(), call(OTHER)] for i in range(10)] + [[make_turn("answer")]]
    rollouts = [make_rollout(e, "red", t) for e, t in zip(examples, turns, strict=True)]
    measures = summarise(rollouts, examples).measures
    score = measures["simple"]["valid_call_rate"]
    assert (score.value, score.num) == (3 / 4, 10)
    # Five rollouts with 2 of 2, five with 1 of 2: as precise as 20 independent calls at most.
    assert score.interval == pytest.approx(share_score([(1, 1)] * 15 + [(0, 1)] * 5).interval)
    for group in ("all", "task/attribute_recognition", "type/positive"):
        assert measures[group]["valid_call_rate"] == score
    assert "valid_call_rate" not in measures["hard"]  # it has no calls
    # Means of numbers of steps are not shares.
    steps = measures["all"]["steps_to_answer"]
    assert steps == mean_score([rollout.num_operations for rollout in rollouts])
    assert measures["hard"]["steps_to_answer"] == Score(0.0, None, 1)


def read(x):
    return ("READ_TEXT", {"bbox": [x, 0, x + 10, 10]})


def run(operation, arguments):
    return call(arguments, operation, {"ok": 1})


@pytest.mark.parametrize(
    ("calls", "agreeing"),
    [([0, 20, 40], 3), ([0, 0, 20], 2), ([20, 0, 40], 2), ([40, 20, 0], 1), ([60], 0), ([], 0),
     ([60, 0, 60, 40], 2)],
)  # fmt: skip
def test_reference_steps_count_in_order_and_once(calls, agreeing):
    example = make_example(trajectory=tuple(make_step(*read(x)) for x in (0, 20, 40)))
    rollout = make_rollout(example, "x", [run(*read(x)) for x in calls])
    assert operation_fractions(rollout, example) == {
        "operation_precision": (agreeing, len(calls)),
        "operation_recall": (agreeing, 3),
    }


def test_planted_steps_are_no_reference_and_calls_not_run_do_not_count():
    steps = (make_step(*read(0), supervised=False), make_step(*read(20)))
    example = make_example(trajectory=steps)
    limit = make_turn("call", operation="READ_TEXT", arguments=read(20)[1])
    rollout = make_rollout(example, None, [run(*read(0)), limit])
    assert operation_fractions(rollout, example) == {
        "operation_precision": (0, 1),
        "operation_recall": (0, 1),
    }
    bare = make_example()
    rates = operation_fractions(make_rollout(bare, "x", [run(*read(0))]), bare)
    assert set(rates.values()) == {None}


def test_the_first_sentence_of_a_turn():
    assert first_sentence("No, step 2 looks elsewhere. The red") == "no, step 2 looks elsewhere"
    assert first_sentence("No, 3.5 is wrong. So") == "no, 3.5 is wrong"
    assert first_sentence("") == ""


def judged(kind):
    return generate_example(seed=2, index=0, task="object_counting", sample_type=kind)


@pytest.mark.parametrize("kind", JUDGED)
def test_the_reference_itself_detects_and_diagnoses(kind):
    example = judged(kind)
    step = example.trajectory[0]
    text = format_step(step.thought, step.operation, step.arguments)
    rollout = make_rollout(example, None, [make_turn("call", text=text)])
    assert set(detection_fractions(rollout, example).values()) == {(True, 1)}


@pytest.mark.parametrize(
    ("text", "detected", "diagnosed"),
    [
        ("No, 99 is wrong. Look", True, False),
        (" no\n<tool_call>{}</tool_call>", True, False),
        ("Number 1: red. ", False, False),
        ("Nothing is wrong.", False, False),
        ("Yes. No", False, False),
        ("<answer>no</answer>", False, False),
    ],
)
def test_detection_and_diagnosis_are_separate(text, detected, diagnosed):
    example = judged("outcome_negative")
    rollout = make_rollout(example, None, [make_turn("call", text=text)])
    fractions = detection_fractions(rollout, example)
    assert fractions == {"detection_rate": (detected, 1), "diagnosis_rate": (diagnosed, 1)}


def test_only_judgements_with_a_no_are_judged():
    plain = generate_example(seed=2, index=0, task="object_counting", sample_type="positive")
    step = replace(judged("trap_logical").trajectory[0], thought="It may be so.")
    unclear = replace(judged("trap_logical"), trajectory=(step,))
    turns = [make_turn("answer", text="No. <answer>1</answer>")]
    for example in (plain, unclear):
        fractions = detection_fractions(make_rollout(example, "1", turns), example)
        assert fractions == {"detection_rate": None, "diagnosis_rate": None}


def test_correction_after_a_planted_error():
    example = generate_example(
        seed=4, index=0, task="text_extraction", sample_type="self_correction"
    )
    following = example.trajectory[len(planted_steps(example))]
    mending = make_turn(
        "call", operation=following.operation, arguments=following.arguments, result={}
    )
    wrong = make_turn("call", operation="ZOOM_IN", arguments={}, result={"error": "x"})
    for first, answer, expected in [
        (mending, example.ground_truth, (True, True)),
        (wrong, example.ground_truth, (True, False)),
        (mending, "?", (False, True)),
    ]:
        rollout = make_rollout(example, answer, [first], planted=True)
        corrected, mended = expected
        assert correction_fractions(rollout, example) == {
            "self_correction_rate": (corrected, 1),
            "mending_rate": (mended, 1),
        }
    assert set(correction_fractions(None, example).values()) == {None}


def test_a_planted_step_at_the_end_can_only_be_answered():
    step = make_step("READ_TEXT", {"bbox": [0, 0, 5, 5]}, supervised=False)
    example = make_example(trajectory=(step,))
    rollout = make_rollout(example, "red", [make_turn("answer")], planted=True)
    fractions = correction_fractions(rollout, example)
    assert fractions == {"self_correction_rate": (True, 1), "mending_rate": None}


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(num, data):
    right = data.draw(st.integers(0, num))
    k = data.draw(st.integers(1, num))
    subsets = list(combinations([True] * right + [False] * (num - right), k))
    expected = sum(any(chosen) for chosen in subsets) / len(subsets)
    assert pass_at_k(num, right, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answers", "majority"),
    [
        (["3", "4", "3.0"], "3"),
        (["4", "3", "3.0", "4"], "4"),
        ([None, None, "5"], "5"),
        ([None, None], None),
    ],
)
def test_majority_answer(answers, majority):
    example = make_example(truth="3", task="object_counting")
    rollouts = [make_rollout(example, answer) for answer in answers]
    assert majority_answer(rollouts, example) == majority


def test_measures_of_several_samples():
    examples = [make_example(0, truth="1"), make_example(1, truth="2")]
    answers = [["1", "1", "5", None, "6"], ["9", "9", "2", "8", "7"]]
    samples = [
        [make_rollout(e, a) for a in given] for e, given in zip(examples, answers, strict=True)
    ]
    assert sample_fractions(samples, examples) == {
        "pass_at_1": [(0.4, 1), (pytest.approx(0.2), 1)],
        "pass_at_2": [(pytest.approx(0.7), 1), (pytest.approx(0.4), 1)],
        "pass_at_4": [(1.0, 1), (pytest.approx(0.8), 1)],
        "pass_at_5": [(1.0, 1), (1.0, 1)],
        "majority_accuracy": [(True, 1), (False, 1)],
    }


def test_measures_of_answers_and_steps():
    examples = [make_example(i, truth="ABCD", task="text_extraction") for i in range(3)]
    rollouts = [
        make_rollout(examples[0], "ABCX", [call(), call(), make_turn("answer")]),
        make_rollout(examples[1], "ABCD", [make_turn("answer")]),
        make_rollout(examples[2], None, [call()], outcome="max_operations"),
    ]
    measures = compute_measures(rollouts, [], examples)
    assert measures["answer_score"] == [(0.75, 1), (1.0, 1), (0.0, 1)]
    assert measures["steps_to_answer"] == [(2, 1), (0, 1), None]


def test_an_evaluation_with_samples_planted_errors_and_teacher_forcing(nano, encoder, examples):
    corrections = [
        replace(
            generate_example(seed=9, index=i, task="text_extraction", sample_type=kind),
            difficulty="simple",
        )
        for i, kind in enumerate(["self_correction", "positive", "self_correction"])
    ]
    chosen = [*examples, *corrections]
    settings = EvaluationSettings(
        **LIMITS,
        compare_base=False,
        num_samples=3,
        temperature=0.8,
        planted_errors=True,
        teacher_forced=True,
    )
    adapter = evaluate_model(nano, encoder, chosen, settings).adapter
    assert [r.example_id for r in adapter.rollouts] == [e.id for e in chosen]
    assert [[r.sample for r in samples] for samples in adapter.samples] == [[0, 1, 2]] * 17
    assert [r.example_id for r in adapter.planted] == [corrections[0].id, corrections[2].id]
    measures = adapter.measures["all"]
    expected = {
        *("valid_call_rate", "well_formed_call_rate", "failed_operation_rate"),
        *("repeated_call_rate", "answer_score", "operation_precision", "operation_recall"),
        *("detection_rate", "diagnosis_rate", "self_correction_rate", "mending_rate"),
        *("pass_at_1", "pass_at_2", "pass_at_3", "majority_accuracy"),
        *("teacher_forced_token_accuracy", "teacher_forced_answer_accuracy"),
    }
    if any(r.answer for r in adapter.rollouts):
        expected |= {"steps_to_answer"}
    assert set(measures) == expected
    assert measures["self_correction_rate"].num == 2
    right = [correct_answers(s, [e] * 3) for s, e in zip(adapter.samples, chosen, strict=True)]
    assert measures["pass_at_1"].value == pytest.approx(sum(map(sum, right)) / 51)
    assert measures["pass_at_3"].value == pytest.approx(sum(map(any, right)) / 17)
    assert "mending_rate" in adapter.measures["type/self_correction"]
    assert "detection_rate" not in adapter.measures["type/positive"]
    assert any(name.startswith("operation/") for name in adapter.measures)
    assert "simple/text_extraction" not in adapter.measures


def test_a_second_adapter_is_compared(adapted, lively, encoder, examples):
    settings = EvaluationSettings(**LIMITS)
    result = evaluate_model(
        adapted, encoder, examples[:4], settings, against=lambda: nullcontext(lively)
    )
    against = result.models["against"]
    assert against.rollouts == result.base.rollouts != result.adapter.rollouts
    assert result.comparisons["against"] == result.comparisons["base"]
