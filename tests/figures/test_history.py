"""The history that figures are drawn from: measurements, spans of stages, and downsampling."""

import io
import random
import time

import pytest

from pixelis.figures import (
    FigureSettings,
    as_figure,
    as_page,
    build_history,
    loss_by_difficulty,
    samples_drawn,
    timeline,
)
from pixelis.figures.history import (
    MAX_EVENTS,
    downsample_events,
    downsample_rows,
    stage_spans,
)

SIMPLE, FULL = {"simple": 1.0, "hard": 0.0}, {"simple": 0.25, "hard": 0.75}


def test_metrics_become_strata_losses_and_training_loss(make_history):
    built = make_history()
    assert built.strata == [(0, {"simple": 0.2, "hard": 0.1}), (50, {"simple": 0.8, "hard": 0.4})]
    assert built.losses == [(0, {"simple": 1.5, "hard": 2.0}), (50, {"simple": 0.5, "hard": 1.0})]
    assert built.training_loss == [(1, 2.0), (2, 1.0)]
    assert (built.reached, built.max_steps) == (50, 100)
    # From easy to hard as the mixes name them, not as the metrics do.
    assert list(built.strata[0][1]) == ["simple", "hard"]


def test_the_metric_is_the_one_that_decides(make_history, metrics):
    metrics = metrics | {"eval/simple/likelihood": [(7, 0.3)]}
    assert make_history(metrics=metrics, metric="likelihood").strata == [(7, {"simple": 0.3})]


def test_mixes_come_from_events_and_from_metrics(drifting):
    assert drifting.mixes == [
        (0, {"simple": 1.0, "hard": 0.0}),
        (20, {"simple": 0.5, "hard": 0.5}),
        (21, {"simple": 0.25, "hard": 0.75}),
    ]


def test_restored_weights_have_their_earlier_strata(make_history, event, start):
    mix, before = {"simple": 1.0}, {"simple": 0.2, "hard": 0.1}
    trial = event(30, "trial", "easy", "full", mix, strata=before)
    back = event(50, "rollback", "easy", "easy", mix, strata={"simple": 0.8, "hard": 0.4})
    after = {"simple": 0.8, "hard": 0.4}
    kept = make_history([start, trial, back])
    assert kept.strata[1:] == [(50, after)]
    extend = event(40, "extend", "easy", "full", mix, strata=after)
    for events in ([start, trial, back], [start, trial, extend, back]):
        restored = make_history(events, restores_weights=True)
        assert restored.strata[1:] == [(50, after), (50, before)]


def test_a_course_may_have_nothing_yet():
    empty = build_history([], {}, max_steps=10, rules=FigureSettings())
    assert (empty.strata, empty.mixes, empty.reached) == ([], [], 0)


def facts(spans):
    return [(v.stage, v.begin, v.end, v.mix, v.trial) for v in spans]


def test_events_cut_a_training_into_spans(event, start, rollback, advance):
    end = event(80, "end", "full", "full", FULL)
    assert facts(stage_spans([start, rollback, advance, end], 80)) == [
        ("easy", 0, 50, SIMPLE, False),
        ("full", 50, 80, FULL, False),
    ]


@pytest.mark.parametrize("rollback_mix", [SIMPLE, FULL])
def test_a_trial_that_is_rolled_back_is_a_span_of_its_own(event, start, rollback_mix):
    trial = event(30, "trial", "easy", "full", FULL)
    extend = event(35, "extend", "easy", "full", FULL)
    back = event(40, "rollback", "easy", "full", rollback_mix)
    for events in ([start, trial, back], [start, trial, extend, back]):
        assert facts(stage_spans(events, 60)) == [
            ("easy", 0, 30, SIMPLE, False),
            ("easy", 30, 40, FULL, True),
            ("easy", 40, 60, SIMPLE, False),
        ]


def test_without_events_there_are_no_spans():
    assert stage_spans([], 10) == []


# 100,000 events and points: drawn in seconds, with every extreme

MANY = 100_000
SECONDS = 60  # on two busy cores; minutes to hours where nothing is thinned out
BALANCED = {"simple": 0.4, "hard": 0.6}


def long_event(step, kind, stage="simple", to=None, mix=SIMPLE, **more):
    found = {"step": step, "kind": kind, "reason": None, "from_stage": stage}
    return found | {"to_stage": to or stage, "mix": mix, "rollback_count": 0} | more


@pytest.fixture(scope="module")
def long_events():
    """Trials that are rolled back, all along; one advance and one hold among them."""
    found = [long_event(0, "start")]
    numbers = {"perf_before": 0.9, "perf_after": 0.8, "delta": -0.1}
    for step in range(1, MANY - 4, 2):
        found.append(long_event(step, "trial", "simple", "balanced", BALANCED))
        if step == 77_777:
            found.append(long_event(step + 1, "advance", "simple", "balanced", BALANCED, **numbers))
        else:
            found.append(long_event(step + 1, "rollback", **numbers))
        if step == 55_555:
            found.append(long_event(step + 1, "hold"))
    return [*found, long_event(MANY, "end", "balanced", mix=BALANCED)]


@pytest.fixture(scope="module")
def long_metrics():
    """A point a step, one of them far below and one far above the others."""
    rng = random.Random(0)
    values = {step: 0.4 + 0.2 * rng.random() for step in range(1, MANY + 1)}
    points = sorted((values | {33_333: 0.01, 66_666: 0.99}).items())
    names = ("eval/simple/accuracy", "eval/hard/accuracy", "eval/simple/loss", "eval/hard/loss")
    return dict.fromkeys((*names, "train/loss"), points)


@pytest.fixture(scope="module")
def long_history(long_events, long_metrics):
    rules = FigureSettings("accuracy", min_performance=0.6, rollback_threshold=-0.05)
    return build_history(long_events, long_metrics, max_steps=MANY, rules=rules)


@pytest.mark.parametrize("chart", [timeline, samples_drawn, loss_by_difficulty])
def test_many_events_and_points_are_drawn_in_seconds(long_history, chart):
    began = time.monotonic()
    drawn = chart(long_history)
    png = io.BytesIO()
    as_figure(drawn).savefig(png, format="png")
    page = as_page(drawn, "many")
    assert time.monotonic() - began < SECONDS
    assert png.getvalue().startswith(b"\x89PNG")
    assert len(page) < 8_000_000


def test_what_matters_is_among_the_events_that_are_shown(long_history):
    events = long_history.events
    shown = [(event["step"], event["kind"]) for event in events]
    assert len(shown) <= MAX_EVENTS + 10
    for step, kind in [(0, "start"), (55_556, "hold"), (77_777, "trial"), (77_778, "advance"),
                       (MANY, "end")]:  # fmt: skip
        assert (step, kind) in shown
    # Each trial with its decision: the band of a trial ends where the trial did.
    for one, two in zip(events, events[1:], strict=False):
        if one["kind"] == "trial":
            assert two["step"] == one["step"] + 1 and two["kind"] in ("rollback", "advance")
    # All along the training.
    steps = [step for step, kind in shown if kind == "rollback"]
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= MANY / 50
    (title,) = [
        t["text"] for t in timeline(long_history).layout["annotations"] if "<b>" in t["text"]
    ]
    assert title == f"<b>{len(events)} of 99,999 events; all: curriculum/events.json</b>"


def test_every_extreme_and_every_decision_is_drawn(long_history, long_metrics):
    loss, points = long_history.training_loss, long_metrics["train/loss"]
    assert (dict(loss)[33_333], dict(loss)[66_666]) == (0.01, 0.99)
    assert (loss[0], loss[-1]) == (points[0], points[-1]) and len(loss) <= 1000
    measured = dict(long_history.strata)
    assert measured[66_666] == {"simple": 0.99, "hard": 0.99}
    assert {e["step"] for e in long_history.events if e["step"] > 0} <= measured.keys()


def test_what_is_short_stays_as_it_is(long_events):
    few = long_events[:MAX_EVENTS]
    assert downsample_events(few) == few and downsample_events([]) == []
    rows = [(step, {"a": 0.5, "b": step / 7}) for step in range(2000)]
    assert downsample_rows(rows) == rows and downsample_rows([]) == []


def test_an_extended_trial_stays_with_its_decision():
    kinds = ["trial", "extend", "rollback"] * MAX_EVENTS
    kept = downsample_events([long_event(step, kind) for step, kind in enumerate(kinds)])
    assert len(kept) < len(kinds)
    assert [event["kind"] for event in kept] == kinds[: len(kept)]


def test_names_that_are_not_measured_everywhere_are_thinned_alone():
    rows = [(step, {"a": step % 11} | ({"b": step} if step % 2 else {})) for step in range(9000)]
    kept = downsample_rows(rows, keep=[4444])
    assert (4444, {"a": 4444 % 11}) in kept
    assert [row for row in kept if row not in rows] == []
    assert max(row["b"] for _, row in kept if "b" in row) == 8999
