import json

import pytest

from pixelis.curriculum import CurriculumConfig, CurriculumManager

NAMES = ("simple", "medium", "hard")


def strata(*values):
    return dict(zip(NAMES, values, strict=True))


def build(max_steps=None, **settings):
    settings = {"advancement_interval": 10, "trial_steps": 4, **settings}
    manager = CurriculumManager(CurriculumConfig.from_dict(settings), max_steps)
    for _ in range(10):
        manager.step()
    return manager


def run_trial(manager, before, after):
    manager.attempt(10, before)
    for step in range(11, 15):
        manager.step()
        assert manager.attempt_due(step) == (step == 14)
    return manager.attempt(14, after)


def test_while_a_trial_is_open_the_stage_is_the_old_one_and_the_mix_the_next():
    manager = build()
    event = manager.attempt(10, strata(0.9, 0.2, 0.2))
    assert (event.kind, event.from_stage, event.to_stage) == ("trial", "simple", "balanced")
    assert (manager.stage, manager.stage_index) == ("simple", 0)
    assert manager.mix == event.mix == strata(0.4, 0.4, 0.2)
    assert manager.trial == {"step": 10, "interval": 10, "strata": strata(0.9, 0.2, 0.2)}
    assert manager.steps_to_next_decision(10) == 4
    with pytest.raises(ValueError, match="no attempt is due at step 10"):
        manager.attempt(10, strata(0.9, 0.2, 0.2))


def test_a_kept_trial_is_the_advance():
    manager = build()
    event = run_trial(manager, strata(0.8, 0.2, 0.2), strata(0.85, 0.8, 0.7))
    assert (event.kind, event.step, event.reason) == ("advance", 14, None)
    assert (event.perf_before, event.perf_after, event.delta) == (0.8, 0.8, 0.0)
    assert (manager.stage, manager.trial, manager.visit) == ("balanced", None, 2)
    assert (manager.interval, manager.state_dict()["steps_since_advance"]) == (10, 0)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (strata(0.9, 0.2, 0.2), strata(0.9, 0.5, 0.5), "drop"),
        (strata(0.5, 0.2, 0.2), strata(0.5, 0.5, 0.5), "low_performance"),
        (strata(0.9, 0.2, 0.2), strata(0.84, 0.95, 0.95), "forgetting"),
        (strata(0.9, 0.2, 0.2), strata(0.85, 0.95, 0.95), "forgetting"),  # at the threshold
        (strata(0.9, 0.2, 0.2), strata(0.2, 0.2, 0.2), "drop"),  # all three: drop comes first
    ],
)
def test_a_trial_is_rolled_back(before, after, reason):
    manager = build()
    event = run_trial(manager, before, after)
    assert (event.kind, event.reason, event.to_stage) == ("rollback", reason, "simple")
    assert manager.mix == event.mix == strata(1.0, 0.0, 0.0)
    assert (manager.interval, manager.cooldown_until) == (20, 1014)
    assert (manager.visit, manager.trial) == (3, None)
    assert manager.state_dict()["steps_since_advance"] == 0


def test_with_rollback_off_a_trial_is_kept():
    event = run_trial(build(rollback_enabled=False), strata(0.9, 0, 0), strata(0.1, 0, 0))
    assert (event.kind, event.reason) == ("advance", "rollback_disabled")


def test_the_average_uses_only_evaluations_made_since_the_trial_began():
    manager = build(performance_window=3)
    manager.observe(9, strata(0.1, 0.1, 0.1))
    manager.attempt(10, strata(0.1, 0.1, 0.1))
    for _ in range(4):
        manager.step()
    manager.observe(12, strata(0.6, 0.6, 0.6))
    assert manager.attempt(14, strata(0.8, 0.8, 0.8)).average == 0.7


@pytest.mark.parametrize(("max_steps", "is_due"), [(10, False), (13, False), (14, True)])
def test_no_trial_that_would_end_after_max_steps(max_steps, is_due):
    assert build(max_steps).attempt_due(10) == is_due


def test_a_trial_that_ends_at_max_steps_is_decided():
    event = run_trial(build(14), strata(0.8, 0.2, 0.2), strata(0.85, 0.8, 0.7))
    assert event.kind == "advance"


def test_a_trial_still_open_at_the_end_is_named():
    manager = build()
    manager.attempt(10, strata(0.9, 0.2, 0.2))
    assert manager.finish(11).reason == "trial_open"


def test_resumed_inside_a_trial():
    manager, resumed = build(), build()
    manager.attempt(10, strata(0.8, 0.2, 0.2))
    resumed.load_state_dict(json.loads(json.dumps(manager.state_dict())))
    for _ in range(4):
        manager.step()
        resumed.step()
    after = strata(0.85, 0.8, 0.7)
    assert resumed.attempt(14, after) == manager.attempt(14, after)
    assert resumed.state_dict() == manager.state_dict()


def test_a_trial_is_held_after_max_rollbacks():
    manager = build(max_rollbacks=1)
    run_trial(manager, strata(0.9, 0.2, 0.2), strata(0.2, 0.2, 0.2))
    kinds = [event.kind for event in manager.events]
    assert kinds == ["start", "trial", "rollback", "hold"]
