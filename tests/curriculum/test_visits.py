from itertools import pairwise

import pytest

from pixelis.curriculum import CurriculumConfig, CurriculumManager, visits

STRATA = {"simple": 0.9, "medium": 0.8, "hard": 0.7}
POOR = {"simple": 0.9, "medium": 0.1, "hard": 0.0}


def train(strata_by_step, max_steps, **settings):
    """The events of a training with the strata given, else good ones."""
    config = CurriculumConfig.from_dict({"min_performance_for_advance": 0.0, **settings})
    manager = CurriculumManager(config, max_steps=max_steps)
    for step in range(1, max_steps + 1):
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, strata_by_step.get(step, STRATA))
    manager.finish(max_steps, STRATA)
    return [event.to_dict() for event in manager.events]


def spans(events):
    return [(v.index, v.stage, v.begin, v.end, v.entered_by, v.outcome) for v in visits(events)]


SETTINGS = {
    "advancement_interval": 10,
    "rollback_threshold": -0.3,
    "rollback_cooldown": 10,
    "rollback_factor": 1.0,
}


def test_without_trials_a_stage_is_one_visit_whatever_was_attempted_in_it():
    events = train({10: POOR}, 50, **SETTINGS)
    assert [event["kind"] for event in events] == [
        *("start", "rollback", "advance", "advance", "end")
    ]
    assert spans(events) == [
        (1, "simple", 0, 20, "start", "advanced"),
        (2, "balanced", 20, 30, "advance", "advanced"),
        (3, "full", 30, 50, "advance", "ended"),
    ]


def test_a_trial_rolled_back_is_a_visit_and_a_kept_one_the_beginning_of_one():
    events = train({15: POOR}, 60, **SETTINGS, trial_steps=5)
    assert spans(events) == [
        (1, "simple", 0, 10, "start", "tried_next"),
        (2, "balanced", 10, 15, "trial", "rolled_back"),
        (3, "simple", 15, 25, "rollback", "tried_next"),
        (4, "balanced", 25, 40, "trial", "tried_next"),
        (5, "full", 40, 60, "trial", "ended"),
    ]
    tried = visits(events)[1]
    assert tried.reason == "drop"
    assert (tried.strata_at_entry, tried.strata_at_exit) == (STRATA, POOR)
    assert tried.delta == pytest.approx(0.4 * 0.9 + 0.4 * 0.1 - 0.9)
    assert tried.mix == {"simple": 0.4, "medium": 0.4, "hard": 0.2}


def test_an_extended_trial_is_one_visit():
    config = {"decision": "progress", "trial_steps": 5, "advancement_interval": 10}
    manager = CurriculumManager(CurriculumConfig.from_dict(config))
    for step in range(1, 21):
        manager.step()
        if manager.attempt_due(step):
            rises = (0.0, 0.0) if step == 10 else (-0.1, 0.09)
            examples = {name: [0.5 + rise for rise in rises] for name in STRATA}
            manager.attempt(step, STRATA, examples=examples)
    assert [event.kind for event in manager.events[1:]] == ["trial", "extend", "rollback"]
    assert spans([event.to_dict() for event in manager.events]) == [
        (1, "simple", 0, 10, "start", "tried_next"),
        (2, "balanced", 10, 20, "trial", "rolled_back"),
        (3, "simple", 20, None, "rollback", "open"),
    ]


def test_at_every_moment_the_last_visit_is_open_and_the_others_are_whole():
    events = train({15: POOR}, 60, **SETTINGS, trial_steps=5)
    for count in range(1, len(events)):
        found = visits(events[:count])
        last = found[-1]
        assert (last.end, last.outcome) == (None, "open")
        assert all(a.end == b.begin for a, b in pairwise(found))


def test_a_training_that_ends_in_a_trial():
    events = train({}, 12, **SETTINGS, trial_steps=2)
    assert spans(events)[-1] == (2, "balanced", 10, 12, "trial", "ended")
    assert visits(events)[-1].delta == pytest.approx(0.82 - 0.9)


@pytest.mark.parametrize("settings", [{"enabled": False}, {"strategy": "competence"}])
def test_a_training_without_attempts_is_one_visit(settings):
    (visit,) = visits(train({}, 20, **settings))
    assert (visit.begin, visit.end, visit.outcome) == (0, 20, "ended")


def test_a_choice_of_examples_begins_no_visit():
    config = CurriculumConfig.from_dict({"strategy": "self_paced", "advancement_interval": 5})
    manager = CurriculumManager(config, max_steps=20)
    losses = {name: {i: i / 10 for i in range(10)} for name in STRATA}
    for step in range(21):
        if step:
            manager.step()
        if manager.needs_losses(step):
            manager.observe_losses(step, losses)
    manager.finish(20, STRATA)
    kinds = [event.kind for event in manager.events]
    assert kinds.count("advance") > 1
    assert spans([event.to_dict() for event in manager.events]) == [
        (1, "self_paced", 0, 20, "start", "ended")
    ]
