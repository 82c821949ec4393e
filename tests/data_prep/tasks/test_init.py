import random

import pytest

from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.scenes import CELLS
from pixelis.data_prep.sources.drawn import DrawnScenes, location_of
from pixelis.data_prep.tasks import TASK_WEIGHTS, TASKS
from pixelis.operations import OPERATIONS

NAMES = (
    "attribute_recognition",
    "object_counting",
    "geometric_comparison",
    "spatial_reasoning",
    "text_extraction",
    "relationship_detection",
    "temporal_tracking",
)


def proposed(task, seed):
    rng = random.Random(f"{task}:{seed}")
    return TASKS[task](rng, DrawnScenes().picture(rng, task))


def drafts(task, count=150):
    found = [draft for seed in range(count) if (draft := proposed(task, seed))]
    # A task may turn a picture down, but not most of them.
    assert len(found) > count / 3
    return found


def test_every_task_has_a_weight_for_its_difficulty():
    assert tuple(TASKS) == NAMES
    assert set(TASK_WEIGHTS) == set(TASKS)
    assert all(0 <= weight <= 1 for weight in TASK_WEIGHTS.values())


@pytest.mark.parametrize("task", NAMES)
def test_a_draft_is_a_function_of_its_generator(task):
    for seed in range(10):
        first, second = (proposed(task, seed) for _ in range(2))
        assert (first is None) == (second is None)
        if first is not None:
            assert (first.picture, first.question, first.calls, first.answer) == (
                second.picture,
                second.question,
                second.calls,
                second.answer,
            )


@pytest.mark.parametrize("task", NAMES)
def test_a_picture_with_nothing_in_it_suits_no_task(task):
    empty = AnnotatedImage(instances=(), draw=lambda: (), free=tuple(map(location_of, CELLS)))
    assert all(TASKS[task](random.Random(seed), empty) is None for seed in range(30))


@pytest.mark.parametrize("task", NAMES)
def test_every_task_s_pictures_may_be_given_to_every_task(task):
    for other in NAMES:
        for seed in range(10):
            rng = random.Random(seed)
            draft = TASKS[task](rng, DrawnScenes().picture(rng, other))
            assert draft is None or draft.answer


@pytest.mark.parametrize("task", NAMES)
def test_wrong_answers_are_wrong_and_differ(task):
    for draft in drafts(task):
        assert draft.answer not in draft.wrong_answers
        assert len(set(draft.wrong_answers)) == len(draft.wrong_answers) > 0


@pytest.mark.parametrize("task", NAMES)
def test_planned_calls_are_known_operations_with_their_arguments(task):
    for draft in drafts(task, 60):
        assert 1 <= len(draft.calls) <= 5
        for call in draft.calls:
            assert OPERATIONS[call.operation].accepts(call.arguments)
            assert call.thought.strip() == call.thought != ""


@pytest.mark.parametrize("task", NAMES)
def test_scenes_hold_what_the_base_has_seen(task):
    for draft in drafts(task):
        cells = [thing.cell for thing in draft.picture.instances]
        assert set(cells) <= set(CELLS)
        assert len(set(cells)) == len(cells)
        assert 1 <= len(cells) <= 15


@pytest.mark.parametrize("task", NAMES)
def test_nothing_follows_from_results_that_are_errors(task):
    for draft in drafts(task, 60):
        assert draft.answer_from([{"error": "nothing"}] * len(draft.calls)) != draft.answer
