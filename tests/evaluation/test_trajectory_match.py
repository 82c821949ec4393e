import pytest

from pixelis.evaluation.trajectory_match import (
    call_agrees,
    num_agreeing,
    operation_fractions,
    reference_steps,
)
from tests.evaluation.handmade import make_example, make_rollout, make_step, make_turn

BOX = [0, 0, 10, 10]
FOUND = {"area": 9, "bbox": [4, 4, 8, 8]}


def call(operation, arguments, result=None):
    return make_turn("call", operation=operation, arguments=arguments, result=result or {"ok": 1})


@pytest.mark.parametrize(
    ("said", "meant", "found", "agrees"),
    [
        (("READ_TEXT", {"bbox": BOX}), ("READ_TEXT", {"bbox": BOX}), None, True),
        (("READ_TEXT", {"bbox": [0, 0, 10, 20]}), ("READ_TEXT", {"bbox": BOX}), None, True),
        (("READ_TEXT", {"bbox": [0, 0, 10, 21]}), ("READ_TEXT", {"bbox": BOX}), None, False),
        (("GET_PROPERTIES", {"bbox": BOX}), ("READ_TEXT", {"bbox": BOX}), None, False),
        (("READ_TEXT", {"bbox": "all"}), ("READ_TEXT", {"bbox": BOX}), None, False),
        (("READ_TEXT", {}), ("READ_TEXT", {"bbox": BOX}), None, False),
        (("READ_TEXT", [BOX]), ("READ_TEXT", {"bbox": BOX}), None, False),
        (
            ("ZOOM_IN", {"bbox": BOX, "factor": 4}),
            ("ZOOM_IN", {"bbox": BOX, "factor": 2}),
            None,
            True,
        ),
        (
            ("SEGMENT_OBJECT_AT", {"x": 5, "y": 7}),
            ("SEGMENT_OBJECT_AT", {"x": 4, "y": 4}),
            FOUND,
            True,
        ),
        (
            ("SEGMENT_OBJECT_AT", {"x": 8, "y": 7}),
            ("SEGMENT_OBJECT_AT", {"x": 4, "y": 4}),
            FOUND,
            False,
        ),
        (
            ("SEGMENT_OBJECT_AT", {"x": "5", "y": 7}),
            ("SEGMENT_OBJECT_AT", {"x": 4, "y": 4}),
            FOUND,
            False,
        ),
        (
            ("SEGMENT_OBJECT_AT", {"x": 5, "y": 7}),
            ("SEGMENT_OBJECT_AT", {"x": 4, "y": 4}),
            {"error": "no object"},
            False,
        ),
        (
            ("TRACK_OBJECT", {"frames": [1, 2], "bbox": BOX}),
            ("TRACK_OBJECT", {"frames": [1, 2, 3], "bbox": BOX}),
            None,
            False,
        ),
    ],
)
def test_when_a_call_does_what_a_step_does(said, meant, found, agrees):
    assert call_agrees(call(*said), make_step(*meant, found)) is agrees


def read(place):
    return ("READ_TEXT", {"bbox": [place, 0, place + 10, 10]})


@pytest.mark.parametrize(
    ("said", "agreeing"),
    [
        ([0, 20, 40], 3),
        ([0, 0, 20], 2),
        ([20, 0, 40], 2),
        ([40, 20, 0], 1),
        ([60], 0),
        ([], 0),
        ([60, 0, 60, 40], 2),
    ],
)
def test_steps_count_in_order_and_once(said, agreeing):
    example = make_example(trajectory=tuple(make_step(*read(p)) for p in (0, 20, 40)))
    rollout = make_rollout(example, "x", [call(*read(p)) for p in said])
    assert num_agreeing(rollout, example) == agreeing
    found = operation_fractions([rollout], [example])
    assert found == {
        "operation_precision": [(agreeing, len(said))],
        "operation_recall": [(agreeing, 3)],
    }


def test_planted_steps_are_no_reference_and_calls_not_run_do_not_count():
    steps = (make_step(*read(0), supervised=False), make_step(*read(20)))
    example = make_example(trajectory=steps)
    assert reference_steps(example) == steps[1:]
    cut = make_turn("call", operation="READ_TEXT", arguments=read(20)[1])
    rollout = make_rollout(example, None, [call(*read(0)), cut])
    assert operation_fractions([rollout], [example])["operation_precision"] == [(0, 1)]


def test_without_a_reference_nothing_is_said():
    example = make_example()
    rollout = make_rollout(example, "x", [call(*read(0))])
    found = operation_fractions([rollout], [example])
    assert found == {"operation_precision": [None], "operation_recall": [None]}
