"""A course of 100,000 events and points: drawn in seconds, with everything that matters."""

import io
import json
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
from pixelis.figures.downsample import MOST_EVENTS, thin_events, thin_points, thin_rows
from pixelis.figures.draw_html import as_plotly

MANY = 100_000
SECONDS = 60  # on two busy cores; minutes to hours where nothing is thinned out
SIMPLE, BALANCED = {"simple": 1.0, "hard": 0.0}, {"simple": 0.4, "hard": 0.6}


def event(step, kind, stage="simple", to=None, mix=None, **more):
    found = {"step": step, "kind": kind, "reason": None, "from_stage": stage}
    found |= {"to_stage": to or stage, "mix": mix or SIMPLE, "rollback_count": 0, "strata": None}
    return found | dict.fromkeys(("delta", "perf_before", "perf_after", "cooldown_until")) | more


def decided(step, kind, *words, **more):
    numbers = {"perf_before": 0.9, "perf_after": 0.8, "delta": -0.1}
    return event(step, kind, *words, **numbers, **more)


@pytest.fixture(scope="module")
def events():
    """Trials that are rolled back, all along; one advance, one hold and one restore among them."""
    found = [event(0, "start")]
    for step in range(1, MANY - 4, 2):
        found.append(event(step, "trial", "simple", "balanced", BALANCED))
        if step == 70_001:
            found.append(event(step, "restore", "simple", reason="3 bad steps in a row"))
        if step == 77_777:
            found.append(decided(step + 1, "advance", "simple", "balanced", mix=BALANCED))
        else:
            found.append(decided(step + 1, "rollback"))
        if step == 55_555:
            found.append(event(step + 1, "hold"))
    return [*found, event(MANY, "end", "balanced", mix=BALANCED)]


@pytest.fixture(scope="module")
def history():
    """A point a step, one of them far below and one far above the others."""
    rng = random.Random(0)
    values = {step: 0.4 + 0.2 * rng.random() for step in range(1, MANY + 1)} | {
        33_333: 0.01,
        66_666: 0.99,
    }
    points = sorted(values.items())
    names = ("eval/simple/accuracy", "eval/hard/accuracy", "eval/simple/loss", "eval/hard/loss")
    return dict.fromkeys((*names, "train/loss"), points)


@pytest.fixture(scope="module")
def course(events, history):
    rules = FigureSettings("accuracy", min_performance=0.6, rollback_threshold=-0.05)
    return build_history(events, history, max_steps=MANY, rules=rules)


@pytest.mark.parametrize("chart", [timeline, samples_drawn, loss_by_difficulty])
def test_many_events_and_points_are_drawn_in_seconds(events, history, chart):
    began = time.monotonic()
    rules = FigureSettings("accuracy", min_performance=0.6, rollback_threshold=-0.05)
    drawn = chart(build_history(events, history, max_steps=MANY, rules=rules))
    png = io.BytesIO()
    as_figure(drawn).savefig(png, format="png")
    page = as_page(drawn, "many")
    assert time.monotonic() - began < SECONDS
    assert png.getvalue().startswith(b"\x89PNG")
    assert len(page) < 8_000_000


def test_what_matters_is_among_the_events_that_are_shown(events, course):
    shown = [(e["step"], e["kind"]) for e in course.events]
    assert len(shown) <= MOST_EVENTS + 10
    for step, kind in [
        (0, "start"),
        (55_556, "hold"),
        (70_001, "restore"),
        (77_777, "trial"),
        (77_778, "advance"),
        (MANY, "end"),
    ]:
        assert (step, kind) in shown
    # Each trial with what it led to: a band of a trial ends where the trial did.
    for one, two in zip(course.events, course.events[1:], strict=False):
        if one["kind"] == "trial":
            assert (two["step"] - one["step"], two["kind"]) in [
                (1, "rollback"),
                (1, "advance"),
                (0, "restore"),
            ]
    # All along the training.
    steps = [step for step, kind in shown if kind == "rollback"]
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= MANY / 50


def test_how_many_events_are_shown_is_said(events, course):
    (title,) = [panel.title for panel in timeline(course).panels if panel.title]
    assert title == f"{len(course.events)} of 100,000 events; all: curriculum/events.json"
    assert len(events) == MANY
    texts = [note["text"] for note in as_plotly(timeline(course))["layout"]["annotations"]]
    assert f"<b>{title}</b>" in texts


def test_every_extreme_of_a_line_is_drawn(course, history):
    found = dict(course.training_loss)
    assert (found[33_333], found[66_666]) == (0.01, 0.99)
    assert (course.training_loss[0], course.training_loss[-1]) == (
        history["train/loss"][0],
        history["train/loss"][-1],
    )
    assert len(course.training_loss) <= 1000
    assert dict(course.strata)[66_666] == {"simple": 0.99, "hard": 0.99}


def test_decisions_keep_their_measurements(course):
    measured = {step for step, _ in course.strata}
    assert {e["step"] for e in course.events if e["step"] > 0} <= measured


def test_what_is_short_stays_as_it_is(events):
    few = events[:MOST_EVENTS]
    assert thin_events(few) == few
    rows = [(step, {"a": 0.5, "b": step / 7}) for step in range(2000)]
    assert thin_rows(rows) == rows
    assert thin_points([(1, 0.5), (2, 0.25)]) == [(1, 0.5), (2, 0.25)]
    assert thin_rows([]) == [] and thin_events([]) == [] and thin_points([]) == []


def test_names_that_are_not_measured_everywhere_are_thinned_alone():
    rows = [(step, {"a": step % 11} | ({"b": step} if step % 2 else {})) for step in range(9000)]
    kept = thin_rows(rows, keep=[4444])
    assert (4444, {"a": 4444 % 11}) in kept
    assert [row for row in kept if row not in rows] == []
    assert max(row["b"] for _, row in kept if "b" in row) == 8999
    assert json.loads(json.dumps(kept[0])) == [0, {"a": 0}]
