"""Every strategy as a training: what reaches the model, what is said, and a kill in the middle."""

import math
import signal
from bisect import bisect_right
from collections import Counter

import pytest

from pixelis.curriculum import draw_scored, strategies
from pixelis.curriculum.strategies.adaptive import select_active
from pixelis.data.store import load_split

pytestmark = pytest.mark.integration

NAMES = ("simple", "medium", "hard")
USUAL = {
    "advancement_interval": 2,
    "eval_samples_per_difficulty": 2,
    "performance_metric": "likelihood",  # changes with every step, however small
}
COMPETENCE = USUAL | {"strategy": "competence", "competence": {"c0": 0.1, "steps": 5}}
SELF_PACED = USUAL | {"strategy": "self_paced", "scored_pool_size": 18}
ADAPTIVE = USUAL | {"strategy": "adaptive", "adaptive": {"floor": 0.2, "rate": 2.0}}
ACTIVE = ADAPTIVE | {
    "scored_pool_size": 18,
    "adaptive": {"floor": 0.2, "rate": 2.0, "active_fraction": 0.4, "noise_cut": 0.8},
}
SCHEDULE = USUAL | {"strategy": "schedule", "schedule": {"steps": [1, 4]}}
FIXED = USUAL | {"enabled": False}
STEPS = 5
PER_STEP = 4


@pytest.fixture(scope="module")
def rows(data_dir):
    return load_split(data_dir, "train")


def events_of(seen):
    return [(event.kind, event.step) for event in seen.result.events]


def assert_quota(seen, mixes):
    """After each step of a visit, counts within 1 of the mix; `mixes` are {first step: mix}."""
    counts, drawn, mix = Counter(), 0, {}
    for step in range(1, STEPS + 1):
        if step in mixes:
            counts, drawn, mix = Counter(), 0, mixes[step]
        for name, _ in seen.keys[step]:
            counts[name] += 1
            drawn += 1
        assert all(abs(counts[d] - mix.get(d, 0) * drawn) < 1 for d in NAMES), step


def assert_never_measured_twice(seen):
    assert seen.evaluated == sorted(set(seen.evaluated))
    for key in ("eval/hard/loss", "eval/mix_performance"):
        assert seen.recorder.steps(key) == seen.evaluated


def said_mixes(seen):
    """The console lines that a strategy without stages should have told."""
    lines = []
    for event in seen.result.events[:-1]:
        shares = ", ".join(f"{name} {part:.2f}" for name, part in event.mix.items())
        note = event.reason.partition("; ")[2]
        where = "Mix from the start" if event.kind == "start" else f"New mix at step {event.step}"
        if note or event.kind == "advance":
            lines.append(f"🔀 {where}: {shares}" + (f" ({note})" if note else ""))
    return lines


def test_competence_trains_on_ranks_up_to_its_competence(trained, rows):
    seen = trained(COMPETENCE, max_steps=STEPS)
    scores = {name: list(rows[name]["difficulty_score"]) for name in NAMES}
    ordered = sorted(score for name in NAMES for score in scores[name])

    def rank(score):
        return bisect_right(ordered, score) / len(ordered)

    lowest = rank(ordered[0])
    for step in range(1, STEPS + 1):
        competence = min(1.0, math.sqrt(step * (1 - 0.1**2) / 5 + 0.1**2))
        for name, index in seen.keys[step]:
            assert rank(scores[name][index]) <= max(competence, lowest), step
    assert max(rank(scores[name][index]) for name, index in seen.keys[1]) < 0.5
    assert events_of(seen) == [("start", 0), ("end", STEPS)] and seen.lines == []
    # A mix that drifts without events is told at each step that changed it, and drawn.
    assert seen.recorder.steps("curriculum/mix/hard")[:2] == [1, 2]
    shares = {name: len(scores[name]) / len(ordered) for name in NAMES}
    assert seen.result.events[-1].mix == pytest.approx(shares)
    assert seen.recorder.steps("curriculum/stage") == []
    assert "  Strategy: competence" in seen.result.statistics.splitlines()
    assert_never_measured_twice(seen)


def test_self_paced_trains_on_losses_below_its_limit(trained):
    seen = trained(SELF_PACED, max_steps=STEPS)
    assert list(seen.losses) == [0, 2, 4]
    limit = 0.0
    for begin, losses in seen.losses.items():
        flat = sorted(loss for name in NAMES for loss in losses[name].values())
        count = math.ceil(round(0.3 * len(flat), 9))
        above = [loss for loss in flat if loss > flat[count - 1]]
        limit = max(above[0], limit * 1.3)
        trained_on = [key for step in (begin + 1, begin + 2) for key in seen.keys.get(step, [])]
        if limit > flat[-1]:  # all examples are in, those that were not scored too
            assert begin == 4
            continue
        assert all(losses[name][index] < limit for name, index in trained_on), begin
    assert events_of(seen) == [("start", 0), ("advance", 2), ("advance", 4), ("end", STEPS)]
    assert_quota(seen, {e.step + 1: e.mix for e in seen.result.events[:-1]})
    assert seen.lines == said_mixes(seen) and len(seen.lines) == 3
    assert_never_measured_twice(seen)


@pytest.mark.parametrize("settings", [ADAPTIVE, ACTIVE], ids=["adaptive", "active"])
def test_adaptive_keeps_its_floor_and_to_its_mix(trained, rows, settings):
    # An evaluation of its own at 4, where a decision falls as well.
    seen = trained(settings, max_steps=STEPS, eval_steps=4)
    assert events_of(seen) == [("start", 0), ("advance", 2), ("advance", 4), ("end", STEPS)]
    mixes = {event.step + 1: event.mix for event in seen.result.events[:-1]}
    assert all(min(mix.values()) >= 0.2 for mix in mixes.values())
    assert list(mixes[1].values()) == pytest.approx([1 / 3] * 3)
    assert max(mixes[5].values()) > 0.34  # the second reward has moved it
    assert_quota(seen, mixes)
    assert seen.lines == said_mixes(seen)
    assert seen.evaluated == [2, 4, 5]
    assert_never_measured_twice(seen)
    if settings is ADAPTIVE:
        assert seen.losses == {}
        return
    assert list(seen.losses) == [0, 2, 4]
    for begin, losses in seen.losses.items():
        assert 15 < sum(len(losses[name]) for name in NAMES) <= 18
        active = {name: select_active(list(losses[name].items()), 0.4, 0.8)[0] for name in NAMES}
        trained_on = [key for step in (begin + 1, begin + 2) for key in seen.keys.get(step, [])]
        assert all(index in active[name] for name, index in trained_on), begin
    assert len({tuple(losses["hard"]) for losses in seen.losses.values()}) > 1


def test_a_schedule_enters_its_stages_at_its_steps(trained):
    seen = trained(SCHEDULE, max_steps=STEPS)
    assert events_of(seen) == [("start", 0), ("advance", 1), ("advance", 4), ("end", STEPS)]
    assert_quota(seen, {e.step + 1: e.mix for e in seen.result.events[:-1]})
    assert [line.partition(".")[0] for line in seen.lines] == [
        "✅ Advanced curriculum at step 1",
        "✅ Advanced curriculum at step 4",
    ]
    lines = seen.result.statistics.splitlines()[2:4]
    assert lines == ["  Strategy: schedule", "  Final stage: full"]
    assert_never_measured_twice(seen)


def test_where_the_curriculum_is_off_the_last_mix_holds(trained):
    seen = trained(FIXED, max_steps=STEPS)
    assert events_of(seen) == [("start", 0), ("end", STEPS)] and seen.lines == []
    assert_quota(seen, {1: {"simple": 0.2, "medium": 0.3, "hard": 0.5}})
    assert seen.result.statistics.splitlines()[2] == "  Strategy: fixed mix"
    assert_never_measured_twice(seen)


def test_staged_never_measures_twice_at_a_step(trained, retreating):
    # An attempt at 2, the end of its trial at 4, the end of training at 5.
    seen = trained(retreating, max_steps=STEPS, eval_steps=1)
    assert [kind for kind, _ in events_of(seen)] == ["start", "trial", "rollback", "end"]
    assert seen.evaluated == [1, 2, 3, 4, 5]
    assert_never_measured_twice(seen)


def test_held_after_max_rollbacks(trained, retreating):
    changes = {"trial_steps": 0, "rollback_scope": "data", "max_rollbacks": 1}
    seen = trained(retreating | changes, max_steps=STEPS, eval_steps=5)
    assert events_of(seen) == [("start", 0), ("rollback", 2), ("hold", 2), ("end", 5)]
    assert seen.lines[1] == "⏸️ Holding stage simple from step 2. Total rollbacks: 1"
    assert {name for step in seen.keys for name, _ in seen.keys[step]} == {"simple"}
    assert seen.evaluated == [2, 5]


def test_a_strategy_of_one_file_trains(trained, monkeypatch, request):
    folder = request.config.rootpath / "tests" / "curriculum" / "strategies" / "added"
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(folder)])
    found = strategies.find_strategies(strategies.__path__)
    monkeypatch.setitem(strategies.STRATEGIES, "reverse", found["reverse"])
    seen = trained(USUAL | {"strategy": "reverse"}, max_steps=STEPS)
    assert events_of(seen) == [("start", 0), ("advance", 2), ("advance", 4), ("end", STEPS)]
    assert [event.to_stage for event in seen.result.events[:-1]] == ["full", "balanced", "simple"]
    assert_quota(seen, {e.step + 1: e.mix for e in seen.result.events[:-1]})
    assert {name for name, _ in seen.keys[STEPS]} == {"simple"}


# Killed


def assert_resumed(fork_run, folder, settings, fault):
    """A training that is killed after step 3, before the decision at 4 or in it, is the same."""
    whole = fork_run(folder / "whole" / "sft", settings, max_steps=STEPS)
    place = folder / "killed" / "sft"
    fork_run(place, settings, fault=(*fault, "SIGKILL"), code=-signal.SIGKILL, max_steps=STEPS)
    run = fork_run(place, settings, resume="auto", max_steps=STEPS)
    assert f"going on from {place / 'checkpoint-3'} (step 3)" in run.lines
    assert run.adapter == whole.adapter
    assert run.events == whole.events
    assert run.metrics == whole.metrics


@pytest.mark.parametrize("settings", [COMPETENCE, SELF_PACED], ids=["competence", "self_paced"])
def test_killed_and_resumed_it_is_the_same_training(fork_run, tmp_path, settings):
    assert_resumed(fork_run, tmp_path, settings, ("loss", 4))


def test_killed_while_examples_are_scored_it_is_the_same_training(fork_run, tmp_path, rows):
    # Counted are the examples scored at 0, at 2 and at 4, and the 6 evaluated at 2.
    sizes = {name: len(rows[name]) for name in NAMES}
    scored = len(draw_scored(sizes, 18, seed=0, step=0))
    assert_resumed(fork_run, tmp_path, ACTIVE, ("evaluation", 2 * scored + 6 + 5))
