"""Every reason that a call comes at the wrong time; the manager's tests see them raised."""

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.curriculum.explain import why_nothing_is_due
from pixelis.curriculum.state import CurriculumState, Trial
from pixelis.curriculum.strategies.staged import is_held

STATE = {"stage_index": 0, "interval": 10}


def explain(settings, step, max_steps=None, **state):
    config = CurriculumConfig.from_dict(settings)
    strategy = config.strategy_class(config, max_steps)
    return why_nothing_is_due(strategy, "s", "simple", CurriculumState(**STATE | state), step)


@pytest.mark.parametrize(
    ("settings", "state", "text"),
    [
        ({"max_rollbacks": 2}, {"rollbacks_in_a_row": 2}, "held after 2 rollbacks in a row"),
        ({}, {"stage_index": 2}, "strategy 's' makes no more decisions in stage 'simple'"),
        ({"enabled": False}, {}, "strategy 's' makes no more decisions in stage 'simple'"),
        ({"strategy": "self_paced"}, {"memory": {"pool": None}}, "s' makes no more decisions"),
        ({"strategy": "self_paced"}, {}, "strategy 's' decides on losses"),
        ({}, {"steps_since_advance": 10}, "strategy 's' decides on strata"),
        ({"trial_steps": 4}, {"trial": Trial(3, 9, {})}, "that began at step 3 ends in 2 steps"),
        ({}, {"steps_since_advance": 3}, "the next is 7 steps away (steps_since_advance 3, "),
    ],
)
def test_why(settings, state, text):
    assert text in explain(settings, 5, **state)


def test_why_at_the_end():
    shown = explain({}, 10, max_steps=10, steps_since_advance=10)
    assert shown == "it would come at, or its trial end after, max_steps 10"


def test_held():
    config = CurriculumConfig(max_rollbacks=2)
    assert not is_held(config, CurriculumState(**STATE, rollbacks_in_a_row=1))
    assert is_held(config, CurriculumState(**STATE, rollbacks_in_a_row=2))
    assert not is_held(CurriculumConfig(), CurriculumState(**STATE, rollbacks_in_a_row=99))
