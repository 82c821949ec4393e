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
        ([call("READ_TEXT", FAR), answer("B2")],
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
def test_reason_of_a_wrong_answer(turns, why):
    conclusions = "It says “So it is”; the reference finds “The sign says A9”."
    start = f"It answered “B2”, the truth is “A9”. {conclusions}"
    assert explain(rollout(*turns), example()) == f"{start} {why}"


def test_conclusions_are_quoted_where_they_differ():
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
        ([call(), call("ZOOM_IN", FAR)],
         "Still calling after 2 operations, it never answered."),
        ([call(), call(), call()],
         "Still calling after 3 operations, it never answered. "
         "It made a call again that it had made already, 2 times."),
        ([noise(), noise()],
         "Its last turn was neither a call nor an answer. "
         "2 of its turns were neither a call nor an answer."),
    ],
)  # fmt: skip
def test_reason_of_no_answer(turns, why):
    assert explain(rollout(*turns), example()) == why


@pytest.mark.parametrize(
    ("value", "truth", "task", "start"),
    [
        ("7", "4", "object_counting", "It answered “7”, the truth is “4” (+3). "),
        ("ABCD13", "ABCD12", "text_extraction",
         "It answered “ABCD13”, the truth is “ABCD12” (score 0.83). "),
    ],
)  # fmt: skip
def test_a_near_answer_has_its_distance(value, truth, task, start):
    assert explain(rollout(answer(value)), example(truth=truth, task=task)).startswith(start)


def test_a_point_counts_as_the_object_at_it():
    segment = call("SEGMENT_OBJECT_AT", {"x": 20, "y": 20}, {"bbox": [11, 11, 30, 30]})
    assert "looked at all" in explain(rollout(segment, answer("B2")), example())


def test_without_reference_steps_only_the_answers_are_compared():
    sentences = explain(rollout(call(result={"text": "B2"}), answer("B2")), example(steps=()))
    assert sentences == (
        "It answered “B2”, the truth is “A9”. "
        "It says “So it is”; the reference finds “The sign says A9”."
    )


@pytest.mark.parametrize("arguments", [None, [], "x", {"bbox": [0, 0, 10**400, 1]}, {"a": {}}])
def test_any_arguments_have_a_sentence(arguments):
    odd = call("…", arguments, {"error": {"deep": [1]}})
    assert explain(rollout(odd, answer("x" * 5000)), example())


def test_values_are_short_and_on_one_line():
    assert shorten("a\n b\tc") == "a b c"
    assert shorten({"b": [1, "é"]}) == '{"b": [1, "é"]}'
    assert len(shorten("x" * 100)) == 60
