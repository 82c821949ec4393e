from pixelis.curriculum import CurriculumConfig, CurriculumManager

STRATA = {"simple": 0.9, "medium": 0.1, "hard": 0.0}
SETTINGS = {"strategy": "schedule", "schedule": {"steps": [4, 6]}}


def test_the_stages_begin_at_the_steps_whatever_the_strata_say():
    manager = CurriculumManager(CurriculumConfig.from_dict(SETTINGS))
    assert manager.steps_to_next_decision(0) == 4
    mixes = []
    for step in range(1, 9):
        mixes.append(manager.mix["simple"])
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, STRATA)
    assert mixes == [1.0] * 4 + [0.4] * 2 + [0.2] * 2
    assert manager.steps_to_next_decision(8) is None
    kinds = [(event.step, event.kind, event.from_stage, event.to_stage) for event in manager.events]
    assert kinds == [
        (0, "start", "simple", "simple"),
        (4, "advance", "simple", "balanced"),
        (6, "advance", "balanced", "full"),
    ]


def test_its_events_say_that_it_does_not_roll_back_and_hold_the_numbers():
    manager = CurriculumManager(CurriculumConfig.from_dict(SETTINGS))
    event = manager.attempt(4, STRATA)
    assert {item.reason for item in manager.events} == {"schedule does not roll back"}
    assert (event.perf_before, event.perf_after, event.delta) == (0.9, 0.4, -0.5)
    assert manager.visit == 2
