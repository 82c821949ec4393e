from dataclasses import replace

import pytest

from pixelis.data.chat import format_step
from pixelis.data_prep.generate import generate_example
from pixelis.evaluation.conversation import planted_steps
from pixelis.evaluation.judgement import (
    JUDGED,
    correction_fractions,
    detection_fractions,
    first_sentence,
    says_no,
)
from tests.evaluation.handmade import make_example, make_rollout, make_step, make_turn


@pytest.mark.parametrize(
    ("text", "sentence", "no"),
    [
        ("No, step 2 looks elsewhere. The red", "no, step 2 looks elsewhere", True),
        ("No, 3.5 is wrong. So", "no, 3.5 is wrong", True),
        (" no\n<tool_call>{}</tool_call>", "no", True),
        ("Nothing is wrong. Yes", "nothing is wrong", False),
        ("Yes. No", "yes", False),
        ("<answer>no</answer>", "", False),
        ("", "", False),
    ],
)
def test_first_sentence_of_a_turn(text, sentence, no):
    assert first_sentence(text) == sentence
    assert says_no(text) is no


def judged(kind):
    return generate_example(seed=2, index=0, task="object_counting", sample_type=kind)


@pytest.mark.parametrize("kind", JUDGED)
def test_the_reference_itself_detects_and_diagnoses(kind):
    example = judged(kind)
    step = example.trajectory[0]
    text = format_step(step.thought, step.operation, step.arguments)
    rollout = make_rollout(example, None, [make_turn("call", text=text)])
    assert detection_fractions([rollout], [example]) == {
        "detection_rate": [(True, 1)],
        "diagnosis_rate": [(True, 1)],
    }


@pytest.mark.parametrize(
    ("text", "detected", "diagnosed"),
    [("No, 99 is wrong. Look", True, False), ("Number 1: red. ", False, False)],
)
def test_detection_and_diagnosis_are_separate(text, detected, diagnosed):
    example = judged("outcome_negative")
    rollout = make_rollout(example, None, [make_turn("call", text=text)])
    fractions = detection_fractions([rollout], [example])
    assert fractions == {"detection_rate": [(detected, 1)], "diagnosis_rate": [(diagnosed, 1)]}


def test_only_judgements_with_a_no_are_judged():
    plain = generate_example(seed=2, index=0, task="object_counting", sample_type="positive")
    step = replace(judged("trap_logical").trajectory[0], thought="It may be so.")
    unclear = replace(judged("trap_logical"), trajectory=(step,))
    turns = [make_turn("answer", text="No. <answer>1</answer>")]
    rollouts = [make_rollout(e, "1", turns) for e in (plain, unclear)]
    assert detection_fractions(rollouts, [plain, unclear]) == {
        "detection_rate": [None, None],
        "diagnosis_rate": [None, None],
    }


def test_correction_after_a_planted_error():
    example = generate_example(
        seed=4, index=0, task="text_extraction", sample_type="self_correction"
    )
    following = example.trajectory[len(planted_steps(example))]
    mending = make_turn(
        "call", operation=following.operation, arguments=following.arguments, result={}
    )
    wrong = make_turn("call", operation="ZOOM_IN", arguments={}, result={"error": "x"})
    other = make_example(truth="1")
    for first, answer, expected in [
        (mending, example.ground_truth, (True, True)),
        (wrong, example.ground_truth, (True, False)),
        (mending, "?", (False, True)),
    ]:
        rollout = make_rollout(example, answer, [first], planted=True)
        corrected, mended = expected
        assert correction_fractions({example.id: rollout}, [other, example]) == {
            "self_correction_rate": [None, (corrected, 1)],
            "mending_rate": [None, (mended, 1)],
        }


def test_a_planted_step_at_the_end_can_only_be_answered():
    step = make_step("READ_TEXT", {"bbox": [0, 0, 5, 5]}, supervised=False)
    example = make_example(trajectory=(step,))
    rollout = make_rollout(example, "red", [make_turn("answer")], planted=True)
    fractions = correction_fractions({example.id: rollout}, [example])
    assert fractions == {"self_correction_rate": [(True, 1)], "mending_rate": [None]}
