import random

import pytest

from pixelis.data.scenes import CELLS
from pixelis.data.tasks import TASK_WEIGHTS, TASKS
from pixelis.operations import OPERATIONS

NAMES = (
    "attribute_recognition",
    "object_counting",
    "geometric_comparison",
    "spatial_reasoning",
    "text_extraction",
)


def drafts(task, count=150):
    return [TASKS[task](random.Random(f"{task}:{seed}")) for seed in range(count)]


def test_every_task_has_a_weight_for_its_difficulty():
    assert tuple(TASKS) == NAMES
    assert set(TASK_WEIGHTS) == set(TASKS)
    assert all(0 <= weight <= 1 for weight in TASK_WEIGHTS.values())


@pytest.mark.parametrize("task", NAMES)
def test_a_draft_is_a_function_of_its_generator(task):
    first, second = (TASKS[task](random.Random(9)) for _ in range(2))
    assert (first.scene, first.question, first.calls, first.answer) == (
        second.scene,
        second.question,
        second.calls,
        second.answer,
    )


@pytest.mark.parametrize("task", NAMES)
def test_wrong_answers_are_wrong_and_differ(task):
    for draft in drafts(task):
        assert draft.answer not in draft.wrong_answers
        assert len(set(draft.wrong_answers)) == len(draft.wrong_answers) > 0


@pytest.mark.parametrize("task", NAMES)
def test_planned_calls_are_known_operations_with_their_arguments(task):
    for draft in drafts(task, 40):
        assert 1 <= len(draft.calls) <= 5
        for call in draft.calls:
            operation = OPERATIONS[call.operation]
            assert set(call.arguments) == set(operation.parameters)
            assert call.thought.strip() == call.thought != ""


@pytest.mark.parametrize("task", NAMES)
def test_scenes_hold_what_the_base_has_seen(task):
    for draft in drafts(task):
        scene = draft.scene
        assert set(item.cell for item in scene.items) <= set(CELLS)
        assert len({item.cell for item in scene.items}) == len(scene.items)
        assert 1 <= len(scene.items) <= 15


@pytest.mark.parametrize("task", NAMES)
def test_nothing_follows_from_results_that_are_errors(task):
    for draft in drafts(task, 40):
        assert draft.answer_from([{"error": "nothing"}] * len(draft.calls)) != draft.answer
