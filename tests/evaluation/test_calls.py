import pytest

from pixelis.evaluation.calls import call_fractions, num_valid
from pixelis.evaluation.summary import summarise
from tests.evaluation.handmade import make_example, make_rollout, make_turn

BOX, OTHER = {"bbox": [0, 0, 28, 28]}, {"bbox": [1, 1, 3, 3]}
ERROR = {"error": "?"}


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
        ([call(result=ERROR, failure="failed_operation")], 1),  # nothing there: a right call
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
def test_valid_calls(turns, num):
    assert num_valid(rollout(*turns)) == num


def test_rates_are_shares_of_acts_operations_and_calls():
    wrong = call(operation="DRAW", result=ERROR, failure="unknown_operation")
    limit = make_turn("call", operation="READ_TEXT", arguments=BOX)
    turns = [call(), wrong, call(failure="repeated_call"), make_turn("error", result=ERROR), limit]
    assert call_fractions([rollout(*turns), rollout(make_turn("answer"))]) == {
        "valid_call_rate": [(3, 5), None],
        "well_formed_call_rate": [(4, 5), None],
        "failed_operation_rate": [(1, 3), None],
        "repeated_call_rate": [(2, 4), None],
    }


def test_they_have_intervals_in_every_group():
    examples = [
        make_example(0),
        make_example(1),
        make_example(2, difficulty="hard", task="object_counting"),
    ]
    found = [
        make_rollout(examples[0], "red", [call(), call(OTHER)]),
        make_rollout(examples[1], "red", [call(None, result=ERROR), call()]),
        make_rollout(examples[2], "red", [make_turn("answer")]),
    ]
    measures = summarise(found, [], examples, bootstrap_samples=200, seed=0).measures
    score = measures["simple"]["valid_call_rate"]
    assert (score.value, score.num) == (3 / 4, 2)
    assert score.low == 0.5 and score.high == 1
    for group in ("all", "task/attribute_recognition", "type/positive"):
        assert measures[group]["valid_call_rate"].value == 3 / 4
    assert "valid_call_rate" not in measures["hard"]  # nothing was called there
