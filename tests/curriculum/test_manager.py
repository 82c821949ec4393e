import copy
import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumManager

NAMES = ("simple", "medium", "hard")
GOOD = dict.fromkeys(NAMES, 0.9)
BAD = {"simple": 0.9, "medium": 0.1, "hard": 0.1}

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.sampled_from([True, True, True, False]),
        "advancement_interval": st.integers(1, 6),
        "min_performance_for_advance": st.floats(0, 1),
        "performance_window": st.integers(1, 4),
        "rollback_enabled": st.sampled_from([True, True, False]),
        "rollback_threshold": st.floats(-1, 0),
        "rollback_cooldown": st.integers(0, 9),
        "rollback_factor": st.sampled_from([1, 1.1, 1.5, 2.0, 3]),
        "max_rollbacks": st.none() | st.integers(1, 3),
        "trial_steps": st.integers(0, 5),
        "decision": st.sampled_from(["guide", "progress"]),
        "min_progress": st.floats(0, 0.3),
    },
).map(
    lambda settings: settings if settings.get("trial_steps") else settings | {"decision": "guide"}
)
STRATA = st.fixed_dictionaries({name: st.floats(0, 1) for name in NAMES})
# What happens after each step: nothing, or a scheduled evaluation of these strata.
STEPS = st.lists(st.tuples(st.booleans(), STRATA), min_size=1, max_size=40)
MAX_STEPS = st.none() | st.integers(1, 45)


def build(max_steps=None, **settings):
    return CurriculumManager(CurriculumConfig.from_dict(settings), max_steps)


def examples_of(strata):
    """Three examples of each difficulty, whose differences are not alike."""
    return {name: [value, value**2, 1 - value / 2] for name, value in strata.items()}


def run(manager, steps, begin=0):
    """Drive the manager as the trainer does."""
    for step, (is_scheduled, strata) in enumerate(steps, begin + 1):
        manager.step()
        if is_scheduled:
            manager.observe(step, strata)
        if manager.attempt_due(step):
            manager.attempt(step, strata, examples=examples_of(strata))


def test_the_worked_example_to_the_digit():
    manager = build()
    due = []
    for step in range(1, 2001):
        manager.step()
        if manager.attempt_due(step):
            due.append(step)
            strata = (0.90, 0.80, 0.70) if step == 500 else (0.92, 0.90, 0.86)
            manager.attempt(step, dict(zip(NAMES, strata, strict=True)))
    start, first, second, third = manager.events
    assert due == [500, 1500, 2000]
    assert (first.kind, first.reason, first.step) == ("rollback", "drop", 500)
    assert (first.perf_before, first.perf_after, first.delta) == (0.9, 0.82, -0.08)
    assert (first.interval, first.cooldown_until, first.rollback_count) == (1000, 1500, 1)
    assert (second.kind, second.reason, second.step) == ("advance", None, 1500)
    assert (second.perf_before, second.perf_after, second.delta) == (0.92, 0.9, -0.02)
    assert (second.interval, second.from_stage, second.to_stage) == (500, "simple", "balanced")
    assert third.kind == "advance" and manager.stage == "full"
    assert manager.steps_to_next_decision(2000) is None


def reference(settings, max_steps, steps):
    """Compute the kinds, reasons and deltas of the events from the rules, written out plainly."""
    config = CurriculumConfig.from_dict(settings).to_dict()
    mixes = [stage["difficulty_mix"] for stage in config["stages"]]
    index = 0 if config["enabled"] else len(mixes) - 1
    interval, since, cooldown, in_a_row = config["advancement_interval"], 0, 0, 0
    window, trial, records = [], None, []

    def change(before, after, name):
        ends = examples_of(before)[name], examples_of(after)[name]
        differences = [two - one for one, two in zip(*ends, strict=True)]
        return statistics.mean(differences), statistics.variance(differences) / 3

    def performance(mix, strata):
        return sum(mix[name] * strata[name] for name in NAMES)

    for step, (is_scheduled, strata) in enumerate(steps, 1):
        since += 1
        length = config["trial_steps"]
        if trial is not None:
            due = step == trial[0] + length * (1 + trial[2])
        else:
            due = since >= interval and step >= cooldown and index < len(mixes) - 1
            due = due and (config["max_rollbacks"] is None or in_a_row < config["max_rollbacks"])
            due = due and (max_steps is None or (step < max_steps and step + length <= max_steps))
        if is_scheduled or due:
            window = [*window, (step, strata)][-config["performance_window"] :]
        if not due:
            continue
        old, new = mixes[index], mixes[index + 1]
        if trial is None and length > 0:
            trial = (step, strata, False)
            records.append((step, "trial", None))
            continue
        begin, before, is_extended = trial or (-1, strata, False)
        delta = performance(new, strata) - performance(old, before)
        seen = [performance(new, item) for at, item in window if at > begin]
        average = sum(seen) / len(seen)
        forgetting = performance(old, before) - performance(old, strata)
        threshold = config["rollback_threshold"]
        # Where the numbers are this close, floats cannot tell: the reference does not either.
        margins = [delta - threshold, average - config["min_performance_for_advance"]]
        margins += [forgetting + threshold] if length else []
        if any(abs(margin) < 1e-9 for margin in margins):
            return None
        reason = None
        if config["decision"] == "progress":
            changes = {name: change(before, strata, name) for name in NAMES}
            growing = [name for name in NAMES if new[name] > old[name]]
            least = min(growing, key=lambda name: changes[name][0])
            progress, variance = changes[least]
            forgetting = -sum(old[name] * changes[name][0] for name in NAMES)
            noise = math.sqrt(sum(old[name] ** 2 * changes[name][1] for name in NAMES))
            forgot, f_error = forgetting + threshold, 2 * noise
            gained, p_error = progress - config["min_progress"], 2 * math.sqrt(variance)
            margins = [forgot, gained, abs(forgot) - f_error, abs(gained) - p_error]
            if any(abs(margin) < 1e-9 for margin in margins):
                return None
            is_open = not is_extended and (max_steps is None or step + length <= max_steps)
            is_noise = abs(forgot) <= f_error or abs(gained) <= p_error
            has_failed = forgot >= f_error or gained <= -p_error
            if config["rollback_enabled"] and is_open and is_noise and not has_failed:
                trial = (begin, before, True)
                records.append((step, "extend", "unclear"))
                continue
            if average < config["min_performance_for_advance"]:
                reason = "low_performance"
            if gained < 0:
                reason = f"no_progress: {least}"
            if forgot >= 0:
                reason = "forgetting"
            if not config["rollback_enabled"]:
                reason = "kept in any case"
        else:
            if forgetting >= -threshold and length:
                reason = "forgetting"
            if average < config["min_performance_for_advance"]:
                reason = "low_performance"
            if delta <= threshold:
                reason = "drop"
        trial, since = None, 0
        if reason is None or not config["rollback_enabled"]:
            kept = None if reason is None else "rollback_disabled"
            index, interval, in_a_row = index + 1, config["advancement_interval"], 0
            records.append((step, "advance", kept))
        else:
            in_a_row, cooldown = in_a_row + 1, step + config["rollback_cooldown"]
            interval = math.ceil(round(interval * config["rollback_factor"], 9))
            records.append((step, "rollback", reason))
            if in_a_row == config["max_rollbacks"]:
                records.append((step, "hold", "max_rollbacks"))
    return records


@given(SETTINGS, MAX_STEPS, STEPS)
def test_the_rules(settings, max_steps, steps):
    expected = reference(settings, max_steps, steps)
    manager = build(max_steps, **settings)
    run(manager, steps)
    if expected is not None:
        records = [(event.step, event.kind, event.reason) for event in manager.events[1:]]
        assert records == expected


@given(SETTINGS, MAX_STEPS, STEPS)
def test_never_due_before_the_three_conditions(settings, max_steps, steps):
    manager = build(max_steps, **settings)
    for step, (_, strata) in enumerate(steps, 1):
        manager.step()
        if not manager.attempt_due(step):
            with pytest.raises(ValueError, match=f"no attempt is due at step {step}$"):
                manager.attempt(step, strata)
            continue
        if manager.trial is None:
            assert manager.state_dict()["steps_since_advance"] >= manager.interval
            assert step >= manager.cooldown_until
            assert manager.stage_index < 2
            assert max_steps is None or step < max_steps
        else:
            length = manager.config.trial_steps * (1 + manager.trial["extended"])
            assert step == manager.trial["step"] + length
        event = manager.attempt(step, strata, examples=examples_of(strata))
        assert event.mix == manager.mix
        last = manager.events[-1]
        assert last is event or last.kind == "hold"
        assert (last.interval, last.cooldown_until, last.rollback_count) == (
            manager.interval,
            manager.cooldown_until,
            manager.rollback_count,
        )


@given(SETTINGS, MAX_STEPS, STEPS, STEPS)
def test_resumed_through_json_nothing_after_it_changes(settings, max_steps, before, after):
    manager, resumed = build(max_steps, **settings), build(max_steps, **settings)
    run(manager, before)
    state = json.loads(json.dumps(manager.state_dict()))
    assert state == manager.state_dict()
    resumed.load_state_dict(state)
    run(manager, after, len(before))
    run(resumed, after, len(before))
    assert resumed.state_dict() == manager.state_dict()
    assert resumed.events == manager.events


@given(SETTINGS, MAX_STEPS, STEPS)
def test_steps_to_next_decision_is_the_smallest(settings, max_steps, steps):
    manager = build(max_steps, **settings)
    run(manager, steps)
    ahead, expected = copy.deepcopy(manager), None
    for count in range(1, 200):
        ahead.step()
        if ahead.attempt_due(len(steps) + count):
            expected = count
            break
    found = manager.steps_to_next_decision(len(steps))
    assert found == expected or (expected is None and found >= 200)


@given(SETTINGS, STEPS)
def test_attempt_due_is_pure(settings, steps):
    manager = build(**settings)
    run(manager, steps)
    before = manager.state_dict()
    for step in range(60):
        assert manager.attempt_due(step) == manager.attempt_due(step)
    assert manager.state_dict() == before


def step_to(manager, step):
    while manager.state_dict()["steps"] < step:
        manager.step()
    return manager


@pytest.mark.parametrize(
    ("threshold", "medium", "kind"),
    [
        (-0.05, 0.8, "rollback"),  # 0.9 * 0.5 + 0.8 * 0.5 - 0.9 is -0.04999999999999993 in floats
        (-0.05, 0.8002, "advance"),
        (0, 0.9, "rollback"),
        (0, 0.9001, "advance"),
    ],
)
def test_at_the_threshold_it_is_rolled_back(threshold, medium, kind):
    mixes = [{"simple": 1.0}, {"simple": 0.5, "medium": 0.5}]
    stages = [{"name": str(i), "difficulty_mix": mix} for i, mix in enumerate(mixes)]
    manager = step_to(build(stages=stages, rollback_threshold=threshold), 500)
    assert manager.attempt(500, {"simple": 0.9, "medium": medium}).kind == kind


@pytest.mark.parametrize(("level", "kind"), [(0.6, "advance"), (0.5999, "rollback")])
def test_the_minimum_itself_is_enough(level, kind):
    event = step_to(build(), 500).attempt(500, dict.fromkeys(NAMES, level))
    assert event.kind == kind
    assert event.reason == (None if kind == "advance" else "low_performance")


def test_the_window_counts_an_observation_and_an_attempt_at_one_step_once():
    manager = build(performance_window=2)
    manager.observe(400, dict.fromkeys(NAMES, 0.5))
    step_to(manager, 500).observe(500, dict.fromkeys(NAMES, 0.7))
    event = manager.attempt(500, dict.fromkeys(NAMES, 0.7))
    assert (event.average, event.kind) == (0.6, "advance")
    assert manager.state_dict()["history"] == [dict.fromkeys(NAMES, 0.5), dict.fromkeys(NAMES, 0.7)]


@pytest.mark.parametrize(
    ("interval", "factor", "longer"),
    [(100, 1.1, 110), (500, 1.7e308, 2**53)],  # in floats, 100 * 1.1 is more than 110
)
def test_the_longer_interval_is_rounded_up_and_does_not_overflow(interval, factor, longer):
    manager = step_to(build(advancement_interval=interval, rollback_factor=factor), interval)
    assert manager.attempt(interval, BAD).interval == longer


def test_held_after_max_rollbacks_in_a_row():
    manager = build(max_rollbacks=2, advancement_interval=10, rollback_cooldown=0)
    assert step_to(manager, 10).attempt(10, BAD).kind == "rollback"
    assert step_to(manager, 30).attempt(30, BAD, examples_seen=5).kind == "rollback"
    assert [event.kind for event in manager.events] == ["start", "rollback", "rollback", "hold"]
    assert (manager.events[-1].reason, manager.events[-1].examples_seen) == ("max_rollbacks", 5)
    assert manager.steps_to_next_decision(30) is None
    with pytest.raises(ValueError, match="no attempt is due at step 900"):
        step_to(manager, 900).attempt(900, GOOD)


def test_a_visit_is_counted_where_the_stage_changes():
    manager = build(advancement_interval=10, rollback_cooldown=0)
    step_to(manager, 10).attempt(10, BAD)
    assert manager.visit == 1
    step_to(manager, 30).attempt(30, GOOD)
    assert manager.visit == 2


def test_not_enabled():
    manager = build(enabled=False, stages=[*CurriculumConfig().to_dict()["stages"]])
    assert (manager.stage_index, manager.stage) == (2, "full")
    assert manager.mix == {"simple": 0.2, "medium": 0.3, "hard": 0.5} and manager.pool is None
    assert not any(manager.attempt_due(step) for step in range(3000))
    manager.finish(3000, GOOD)
    assert [event.kind for event in manager.events] == ["start", "end"]
    assert manager.events[0].reason == "disabled does not roll back"
    with pytest.raises(ValueError, match="no attempt is due at step 500"):
        manager.attempt(500, GOOD)


def test_the_end_of_training():
    manager = step_to(build(500), 500)
    assert not manager.attempt_due(500)
    event = manager.finish(500, GOOD, examples_seen=8000)
    assert (event.kind, event.perf_after, event.delta, event.examples_seen) == (
        "end",
        0.9,
        None,
        8000,
    )


def test_the_start_event():
    (event,) = build().events
    assert (event.step, event.kind, event.reason, event.examples_seen) == (0, "start", None, 0)
    assert (event.interval, event.strata, event.mix["simple"]) == (500, None, 1.0)


def test_the_noise_of_the_delta_is_null_without_counts():
    manager = step_to(build(), 500)
    counted = copy.deepcopy(manager)
    assert manager.attempt(500, GOOD).delta_standard_error is None
    event = counted.attempt(500, GOOD, counts=dict.fromkeys(NAMES, 128))
    shifts = (0.6, 0.4, 0.2)
    expected = math.sqrt(sum(shift**2 * 0.09 / 128 for shift in shifts))
    assert event.delta_standard_error == pytest.approx(expected)
    assert event.strata_counts == dict.fromkeys(NAMES, 128)


@pytest.mark.parametrize("hard", [None, 1.01, -0.01, float("nan")])
def test_strata_that_cannot_be_used_change_nothing(hard):
    manager = step_to(build(), 500)
    before = manager.state_dict()
    strata = {**GOOD, "hard": hard} if hard is not None else {"simple": 0.9, "medium": 0.8}
    text = r"strata must have a performance in \[0, 1\] for 'hard', got "
    for act in (manager.attempt, manager.observe):
        with pytest.raises(ConfigError, match=text):
            act(500, strata)
    assert manager.state_dict() == before


def test_what_is_handed_out_is_a_copy():
    manager = build(trial_steps=5)
    step_to(manager, 500).attempt(500, GOOD)
    before = manager.state_dict()
    manager.mix["simple"] = 0
    manager.trial["strata"]["simple"] = 0
    manager.events.clear()
    manager.state_dict()["events"][0]["mix"]["simple"] = 0
    assert manager.state_dict() == before
