"""Sentences about failures, from rollouts made by hand."""

from dataclasses import replace

import pytest

from pixelis.evaluation.reasons import explain, shorten
from tests.evaluation.rollouts import answer, call, example, noise, rollout

FAR = {"bbox": [60, 50, 90, 70]}
FAILED = {"error": "no text in the box"}


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([answer("B2")], "It answered without looking: no operation was run."),
        ([call(FAR and "READ_TEXT", FAR), answer("B2")],
         "What it was shown in turn 1 holds the truth, but it answered otherwise."),
        ([call(arguments=FAR, result={"text": "B2"}), answer("B2")],
         "It did not look at R1 of the reference."),
        ([call(result={"text": "B2"}), answer("B2")],
         "It looked at all that the reference looks at; what it made of it is wrong."),
        ([call(arguments=FAR, result=FAILED), answer("B2")],
         "Every operation failed, the last one with: no text in the box."),
        ([call("ZOOM_IN", {"factor": 2}, {"size": [1, 1]}), answer("B2")],
         "The reference uses READ_TEXT, which it never called."),
    ],
)  # fmt: skip
def test_a_wrong_answer(turns, why):
    said = explain(rollout(*turns), example())
    words = "It says “So it is”; the reference finds “The sign says A9”."
    assert said == f"It answered “B2”, the truth is “A9”. {words} {why}"


def test_a_conclusion_is_quoted_only_beside_another():
    reference = example()
    same = answer("B2")
    same = replace(same, text=f"{reference.conclusion}\n<answer>B2</answer>")
    bare = replace(same, text="<answer>B2</answer>")
    for last in (same, bare):
        assert "It says" not in explain(rollout(call(), last), reference)
    assert "It says" not in explain(rollout(answer("B2")), replace(reference, conclusion=""))
    long = replace(same, text=f"{'so ' * 200}\n<answer>B2</answer>")
    assert len(explain(rollout(long), reference)) < 400


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([noise()], "Its last turn was neither a call nor an answer."),
        ([noise(ended=False)], "Cut off after 7 tokens of one turn, it never answered."),
        ([call(), call(FAR and "ZOOM_IN", FAR)],
         "Still calling after 2 operations, it never answered."),
        ([call(), call(), call()],
         "Still calling after 3 operations, it never answered. "
         "It made a call again that it had made already, 2 times."),
        ([noise(), noise()],
         "Its last turn was neither a call nor an answer. "
         "2 of its turns were neither a call nor an answer."),
    ],
)  # fmt: skip
def test_no_answer(turns, why):
    assert explain(rollout(*turns), example()) == why


def test_a_wrong_number_says_by_how_much():
    said = explain(rollout(answer("7")), example(truth="4", task="object_counting"))
    assert said.startswith("It answered “7”, the truth is “4” (+3). ")


def test_a_text_that_is_nearly_right_says_how_near():
    said = explain(rollout(answer("ABCD13")), example(truth="ABCD12"))
    assert said.startswith("It answered “ABCD13”, the truth is “ABCD12” (score 0.83). ")


def test_a_point_counts_as_the_object_that_it_found():
    found = call("SEGMENT_OBJECT_AT", {"x": 20, "y": 20}, {"bbox": [11, 11, 30, 30]})
    assert "looked at all" in explain(rollout(found, answer("B2")), example())


def test_a_reference_without_steps_leaves_the_answer_alone():
    said = explain(rollout(call(result={"text": "B2"}), answer("B2")), example(steps=()))
    assert said == (
        "It answered “B2”, the truth is “A9”. "
        "It says “So it is”; the reference finds “The sign says A9”."
    )


@pytest.mark.parametrize("arguments", [None, [], "x", {"bbox": [0, 0, 10**400, 1]}, {"a": {}}])
def test_whatever_a_model_writes_has_a_sentence(arguments):
    odd = call("…", arguments, {"error": {"deep": [1]}})
    assert explain(rollout(odd, answer("x" * 5000)), example())


def test_what_is_shown_is_short_and_on_one_line():
    assert shorten("a\n b\tc") == "a b c"
    assert shorten({"b": [1, "é"]}) == '{"b": [1, "é"]}'
    assert len(shorten("x" * 100)) == 60
