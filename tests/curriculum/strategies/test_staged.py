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
    assert manager.trial == {
        **{"step": 10, "interval": 10, "strata": strata(0.9, 0.2, 0.2)},
        **{"examples": None, "extended": False},
    }
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


# Progress


BEFORE = {"simple": [0.5, 0.6], "medium": [0.3, 0.4], "hard": [0.3, 0.5]}


def add(examples, **differences):
    """Examples after a trial, from their own differences; the others stay as they are."""
    return {
        name: [
            round(value + more, 6)
            for value, more in zip(values, differences.get(name, (0,) * len(values)), strict=True)
        ]
        for name, values in examples.items()
    }


def means(examples):
    return {name: sum(values) / len(values) for name, values in examples.items()}


def open_progress_trial(max_steps=None, *, before=BEFORE, examples=True, **settings):
    settings = {"decision": "progress", "min_performance_for_advance": 0.0, **settings}
    manager = build(max_steps, **settings)
    event = manager.attempt(10, means(before), examples=before if examples else None)
    assert (event.progress, event.forgetting) == (None, None)
    return manager


def end_trial(manager, step, after, *, examples=True):
    while manager.state_dict()["steps"] < step:
        assert not manager.attempt_due(manager.state_dict()["steps"])
        manager.step()
    return manager.attempt(step, means(after), examples=after if examples else None)


def numbers_of(event):
    return tuple(
        None if value is None else round(value, 9)
        for value in (
            *(event.progress, event.progress_standard_error),
            *(event.forgetting, event.forgetting_standard_error),
        )
    )


# Of two examples with the differences a and b, the mean is (a + b) / 2 and two standard errors are
# |a - b|. The next mix has more of medium and hard; forgetting is that of simple, its limit .05.
STEADY = (0.2, 0.2)
DECISIONS = {
    # What is clear is decided at once.
    "all rise": (STEADY, STEADY, STEADY, {}, "advance", None),
    "hard does not": (STEADY, STEADY, (-0.03, -0.01), {}, "rollback", "no_progress: hard"),
    "medium least": (STEADY, (-0.2, -0.2), (-0.1, -0.1), {}, "rollback", "no_progress: medium"),
    "forgetting": ((-0.3, -0.2), STEADY, STEADY, {}, "rollback", "forgetting"),
    "both: forgetting": ((-0.3, -0.3), (-0.2, -0.2), STEADY, {}, "rollback", "forgetting"),
    # Exactly at a limit, without noise.
    "progress itself": (STEADY, STEADY, (0.1, 0.1), {"min_progress": 0.1}, "advance", None),
    "progress below": (
        *(STEADY, STEADY, (0.1, 0.1), {"min_progress": 0.100001}),
        *("rollback", "no_progress: hard"),
    ),
    "forgetting itself": ((-0.05, -0.05), STEADY, STEADY, {}, "rollback", "forgetting"),
    "forgetting below": ((-0.049999, -0.049999), STEADY, STEADY, {}, "advance", None),
    # Two standard errors from the limit, on either side, and inside of them.
    "2 se below": (
        *(STEADY, STEADY, (0.0, 0.1), {"min_progress": 0.15}),
        *("rollback", "no_progress: hard"),
    ),
    "inside, below": (STEADY, STEADY, (0.0, 0.1), {"min_progress": 0.149999}, "extend", "unclear"),
    "2 se above": (STEADY, STEADY, (0.05, 0.15), {}, "extend", "unclear"),
    "outside, above": (STEADY, STEADY, (0.0501, 0.15), {}, "advance", None),
    "2 se too much": ((-0.2, -0.1), STEADY, STEADY, {}, "rollback", "forgetting"),
    "inside, too much": ((-0.2, -0.099999), STEADY, STEADY, {}, "extend", "unclear"),
    "2 se to spare": ((0.0, 0.1), STEADY, STEADY, {}, "extend", "unclear"),
    "outside, to spare": ((0.000001, 0.1), STEADY, STEADY, {}, "advance", None),
    # One number is unclear, the other has clearly failed.
    "one has failed": ((-0.06, -0.04), (-0.2, -0.2), STEADY, {}, "rollback", "forgetting"),
    # The average is only looked at where nothing else fails.
    "low performance": (
        *(STEADY, STEADY, STEADY, {"min_performance_for_advance": 0.9}),
        *("rollback", "low_performance"),
    ),
    "no progress comes first": (
        *(STEADY, STEADY, (-0.1, -0.1), {"min_performance_for_advance": 0.9}),
        *("rollback", "no_progress: hard"),
    ),
    "kept whatever it is": (
        *((-0.06, -0.04), STEADY, (-0.1, 0.1), {"rollback_enabled": False}),
        *("advance", "rollback_disabled"),
    ),
}


@pytest.mark.parametrize(
    ("simple", "medium", "hard", "settings", "kind", "reason"), DECISIONS.values(), ids=DECISIONS
)
def test_a_trial_is_decided_by_progress_and_forgetting(
    simple, medium, hard, settings, kind, reason
):
    event = end_trial(
        open_progress_trial(**settings), 14, add(BEFORE, simple=simple, medium=medium, hard=hard)
    )
    assert (event.kind, event.reason) == (kind, reason)
    a, b = min((medium, hard), key=sum)
    progress, error = (a + b) / 2, abs(a - b) / 2
    forgetting, noise = -sum(simple) / 2, abs(simple[0] - simple[1]) / 2
    assert numbers_of(event) == pytest.approx((progress, error, forgetting, noise), abs=1e-9)


def test_harder_is_not_worse():
    """The default run's first trial: hard rises from .245 to .599, and delta is -.127."""
    before, after = strata(0.934, 0.720, 0.245), strata(0.893, 0.824, 0.599)
    examples = [{name: [value] * 4 for name, value in each.items()} for each in (before, after)]
    events = []
    for decision in ("guide", "progress"):
        manager = build(decision=decision, rollback_threshold=-0.05)
        manager.attempt(10, before, examples=examples[0])
        for _ in range(4):
            manager.step()
        events.append(manager.attempt(14, after, examples=examples[1]))
    assert [(event.kind, event.reason) for event in events] == [
        ("rollback", "drop"),
        ("advance", None),
    ]
    assert [event.delta for event in events] == [pytest.approx(-0.1274)] * 2
    assert {numbers_of(event) for event in events} == {(0.104, 0.0, 0.041, 0.0)}


def test_the_numbers_weigh_the_mixes():
    """Three examples each, from balanced to full: only hard grows."""
    stages = [
        {"name": "old", "difficulty_mix": strata(0.4, 0.4, 0.2)},
        {"name": "new", "difficulty_mix": strata(0.2, 0.3, 0.5)},
    ]
    before = dict.fromkeys(NAMES, [0.4, 0.5, 0.6])
    manager = open_progress_trial(before=before, stages=stages)
    after = add(before, simple=(0, 0.1, 0.2), medium=(-0.3, 0, 0), hard=(0.3, 0.3, 0.3))
    event = end_trial(manager, 14, after)
    # var_d / n_d of the differences: .01 / 3, .03 / 3 and 0; means .1, -.1 and .3.
    assert numbers_of(event) == pytest.approx(
        (0.3, 0.0, -(0.04 - 0.04 + 0.06), (0.16 * 0.01 / 3 + 0.16 * 0.03 / 3) ** 0.5), abs=1e-9
    )


@pytest.mark.parametrize(("rise", "kind"), [(0.1, "advance"), (-0.1, "rollback")])
def test_where_no_difficulty_grows_progress_is_that_of_the_next_mix(rise, kind):
    stages = [{"name": n, "difficulty_mix": {"simple": 0.5, "hard": 0.5}} for n in ("old", "new")]
    settings = {"stages": stages, "rollback_threshold": -0.3}
    manager = open_progress_trial(before={k: BEFORE[k] for k in ("simple", "hard")}, **settings)
    after = add(BEFORE, simple=(0.0, 0.0), hard=(2 * rise, 2 * rise))
    event = end_trial(manager, 14, after)
    assert numbers_of(event) == (rise, 0.0, -rise, 0.0)
    assert (event.kind, event.reason) == (kind, None if kind == "advance" else "no_progress")


@pytest.mark.parametrize(
    ("before", "examples"),
    [
        (BEFORE, (False, True)),
        (BEFORE, (True, False)),
        (BEFORE, (False, False)),
        ({**BEFORE, "medium": [0.3]}, (True, True)),  # no sample variance of one
    ],
)
def test_without_the_examples_the_strata_decide_at_once(before, examples):
    had, has = examples
    # Unclear by its examples.
    after = add(before, hard=(-0.1, 0.08))
    manager = open_progress_trial(before=before, examples=had)
    event = end_trial(manager, 14, after, examples=has)
    assert (event.kind, event.reason) == ("rollback", "no_progress: hard")
    assert numbers_of(event) == (-0.01, None, 0.0, None)


def test_an_extension_changes_nothing_else():
    manager = open_progress_trial()
    before = manager.state_dict()
    event = end_trial(manager, 14, add(BEFORE, medium=STEADY, hard=(0.0, 0.1)))
    assert (event.kind, event.reason) == ("extend", "unclear")
    assert (event.from_stage, event.to_stage) == ("simple", "balanced")
    assert event.mix == manager.mix == strata(0.4, 0.4, 0.2)
    assert (event.perf_before, event.average) == (pytest.approx(0.55), event.perf_after)
    assert (event.interval, event.cooldown_until, event.rollback_count) == (10, 0, 0)
    after = manager.state_dict()
    assert after["trial"] == {**before["trial"], "extended": True}
    changed = {name for name in after if after[name] != before[name]}
    counts = {"steps", "steps_since_advance"}
    assert changed == {*counts, "history", "history_steps", "trial", "events"}
    assert all(after[name] == before[name] + 4 for name in counts)
    # To its end nothing else is due, and then it is decided by its values.
    assert manager.steps_to_next_decision(14) == 4
    assert end_trial(manager, 18, add(BEFORE, hard=(0.0, 0.1))).kind == "advance"
    assert (manager.stage, manager.interval, manager.trial) == ("balanced", 10, None)


@pytest.mark.parametrize(
    ("simple", "hard", "kind", "reason"),
    [
        ((-0.1, 0.0), (0.1, 0.1), "rollback", "forgetting"),
        ((0.0, 0.0), (-0.1, 0.09), "rollback", "no_progress: hard"),
        ((0.0, 0.0), (-0.1, 0.1), "advance", None),
    ],
)
def test_an_extended_trial_is_decided_by_its_values(simple, hard, kind, reason):
    manager = open_progress_trial(max_rollbacks=1)
    after = add(BEFORE, simple=simple, medium=STEADY, hard=hard)
    assert end_trial(manager, 14, after).kind == "extend"
    event = end_trial(manager, 18, after)
    assert (event.kind, event.reason, event.step) == (kind, reason, 18)
    kinds = [each.kind for each in manager.events]
    # An extension is no rollback, and the hold comes after the only one.
    assert kinds == ["start", "trial", "extend", kind, *["hold"] * (kind == "rollback")]
    if kind == "rollback":
        assert (event.interval, event.cooldown_until, manager.rollback_count) == (20, 1018, 1)


@pytest.mark.parametrize(
    ("max_steps", "kind"), [(17, "rollback"), (18, "extend"), (None, "extend")]
)
def test_no_extension_that_would_end_after_max_steps(max_steps, kind):
    manager = open_progress_trial(max_steps)
    event = end_trial(manager, 14, add(BEFORE, medium=STEADY, hard=(-0.1, 0.09)))
    assert event.kind == kind


def test_the_average_of_an_extended_trial_is_over_all_of_it():
    manager = open_progress_trial(performance_window=3)
    after = add(BEFORE, medium=STEADY, hard=(-0.1, 0.1))
    level = end_trial(manager, 14, after).average
    manager.step()
    manager.observe(15, strata(1, 1, 1))
    # At most the window: the evaluations at 14, 15 and 18, not that of the beginning.
    assert end_trial(manager, 18, after).average == pytest.approx((2 * level + 1) / 3)


def test_resumed_inside_an_extended_trial():
    manager, resumed = open_progress_trial(20), build(20, decision="progress")
    after = add(BEFORE, medium=STEADY, hard=(-1 / 30, 0.1))
    end_trial(manager, 14, after)
    state = json.loads(json.dumps(manager.state_dict()))
    assert state == manager.state_dict()
    resumed = CurriculumManager(manager.config, 20)
    resumed.load_state_dict(state)
    assert resumed.trial["examples"] == BEFORE and resumed.steps_to_next_decision(14) == 4
    assert end_trial(resumed, 18, after) == end_trial(manager, 18, after)
    assert resumed.state_dict() == manager.state_dict()


@pytest.mark.parametrize(
    ("hard", "text"),
    [
        ([0.1], "examples must have 2 performances for 'hard', as at the trial's beginning, got 1"),
        ([0.1, 1.5], r"examples must have performances in \[0, 1\] for 'hard', got 1.5"),
        ([0.1, float("nan")], "performances in .* for 'hard', got nan"),
    ],
)
@pytest.mark.parametrize("decision", ["guide", "progress"])
def test_examples_that_cannot_be_compared_change_nothing(decision, hard, text):
    manager = open_progress_trial(decision=decision)
    for _ in range(4):
        manager.step()
    before = manager.state_dict()
    with pytest.raises(ValueError, match=text):
        manager.attempt(14, means(BEFORE), examples={**BEFORE, "hard": hard})
    assert manager.state_dict() == before
