"""Figures drawn beside a training: a real run, and the events and metrics of a short curriculum."""

import json
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.figures import FigureSettings
from pixelis.runs.live_figures import LiveFigures, curriculum_rules
from pixelis.tracking import Past, open_run

SIMPLE, FULL = {"simple": 1.0, "hard": 0.0}, {"simple": 0.5, "hard": 0.5}
EVENTS = [
    {"step": step, "kind": kind, "from_stage": source, "to_stage": to, "mix": mix}
    for step, kind, source, to, mix in (
        (0, "start", "easy", "easy", SIMPLE),
        (2, "rollback", "easy", "easy", SIMPLE),
        (4, "advance", "easy", "full", FULL),
        (6, "end", "full", "full", FULL),
    )
]
NAMES = ("timeline", "samples_drawn", "loss_by_difficulty")
RULES = FigureSettings(metric="likelihood", examples_per_step=2)
PROGRESS = {"decision": "progress", "trial_steps": 5}


@contextmanager
def opened(name, **changed):
    """A run with its figures; what is drawn is read from its journal."""
    words = {"entry_point": "sft", "experiment": "figures", "params": {}, "tags": {}}
    output_dir = Path(name)
    with open_run(
        **words, run_name=name, output_dir=output_dir, system_metrics=False, **changed
    ) as recorder:
        settings = {"max_steps": 6, "rules": RULES, "about": "staged · seed 0"}
        yield recorder, partial(LiveFigures, output_dir=output_dir, **settings)


def tell(figures, steps):
    for step in steps:
        figures.metrics({"train/loss": 3.0 / (step + 1), "train/grad_norm": 1.0}, step)
        if step % 2 == 0:
            for workdir, name in enumerate(("simple", "hard"), 1):
                values = {"likelihood": 0.1 * step / workdir, "loss": 2.0 / (step + workdir)}
                figures.metrics({f"eval/{name}/{k}": v for k, v in values.items()}, step)
            for event in EVENTS:
                if event["step"] == step:
                    figures.event(event)


def content(client, run_id):
    folder = Path(client.download_artifacts(run_id, "curriculum"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(client):
    """The artifacts of a training that nobody stopped."""
    with opened("whole") as (recorder, build), build(recorder) as figures:
        tell(figures, range(7))
    artifacts = content(client, recorder.run_id)
    assert Path("whole/timeline.png").read_bytes() == artifacts["timeline.png"]
    return artifacts


def test_a_run_has_every_figure_as_image_and_as_page(whole):
    assert set(whole) == {
        "events.json",
        *(f"{name}.{kind}" for name in NAMES for kind in ("png", "html")),
    }
    assert all(whole[f"{name}.png"].startswith(b"\x89PNG") for name in NAMES)
    assert b"<title>samples drawn</title>" in whole["samples_drawn.html"]
    assert "samples drawn: staged · seed 0".encode() in whole["samples_drawn.html"]


@pytest.mark.parametrize("is_new_run", [False, True])
def test_after_a_resume_the_figures_are_those_of_a_whole_training(client, whole, is_new_run):
    with opened("first") as (recorder, build), build(recorder) as figures:
        tell(figures, range(4))
        length = recorder.position()  # of the checkpoint that is resumed
        tell(figures, range(4, 6))
    run_id = recorder.run_id
    assert content(client, run_id)["timeline.html"] != whole["timeline.html"]
    if is_new_run:
        client.delete_run(run_id)
    past = Past(Path("first"), run_id, length)
    with opened("first", resume_run_id=run_id, past=past) as (recorder, build):
        with build(recorder) as figures:
            tell(figures, range(4, 7))
    assert (recorder.run_id == run_id) != is_new_run
    assert content(client, recorder.run_id) == whole
    assert json.loads(Path("first/events.json").read_text()) == EVENTS
    history = client.get_metric_history(recorder.run_id, "train/loss")
    assert [point.step for point in history] == list(range(7))


def test_attempts_are_drawn_in_another_thread_and_the_newest_wins(client, monkeypatch):
    begun, go_on, threads, pages = threading.Event(), threading.Event(), set(), []

    def figure(name, figure):
        threads.add(threading.current_thread().name)
        begun.set()
        assert go_on.wait(60)

    with opened("slow") as (recorder, build):
        monkeypatch.setattr(recorder, "figure", figure)
        monkeypatch.setattr(recorder, "text", lambda page, name: pages.append((name, page)))
        with build(recorder) as figures:
            tell(figures, range(3))
            assert begun.wait(60)
            tell(figures, range(3, 7))  # an advance, which waits, and is drawn over by the end
            go_on.set()
    assert threads == {"figures_0"}
    timelines = [page for name, page in pages if name == "curriculum/timeline.html"]
    assert len(timelines) == 2
    assert "step 4: advance" not in timelines[0] and "step 4: advance" in timelines[1]


def test_what_cannot_be_drawn_is_logged_once_and_stops_nothing(client, monkeypatch, caplog):
    def broken(name, figure):
        raise RuntimeError("no ink")

    with opened("broken") as (recorder, build):
        monkeypatch.setattr(recorder, "figure", broken)
        with build(recorder) as figures:
            tell(figures, range(7))
    assert [record.message for record in caplog.records] == [
        "the curriculum's figures cannot be drawn (RuntimeError: no ink); the training goes on"
    ]


def test_without_an_event_there_is_nothing_to_draw(client):
    with opened("empty") as (recorder, build), build(recorder):
        pass
    assert client.list_artifacts(recorder.run_id) == []


@pytest.mark.parametrize(
    ("settings", "minimum", "threshold", "has_stages"),
    [
        ({}, 0.6, -0.05, True),
        ({"rollback_enabled": False}, None, None, True),
        # Its limits are not levels of a mix's performance.
        (PROGRESS, 0.6, None, True),
        ({"strategy": "competence"}, None, None, False),
        ({"enabled": False}, None, None, True),
    ],
)
def test_only_thresholds_that_decide_are_drawn(settings, minimum, threshold, has_stages):
    rules = curriculum_rules(CurriculumConfig.from_dict(settings), 16)
    assert (rules.min_performance, rules.rollback_threshold) == (minimum, threshold)
    assert (rules.has_stages, rules.examples_per_step) == (has_stages, 16)
    assert rules.metric == ("answer_likelihood" if settings is PROGRESS else "token_accuracy")


def test_each_event_is_reported_and_a_resume_and_an_end_that_came_too_early(client):
    reports = []

    def on_event(events, *, step, error):
        reports.append((len(events), step, error))

    failure = ValueError("diverged")
    with pytest.raises(ValueError, match="diverged"):
        with opened("run") as (recorder, build), build(recorder, on_event=on_event) as figures:
            tell(figures, range(4))
            raise failure
    assert reports == [(1, 0, None), (2, 2, None), (2, 3, failure)]
    reports.clear()
    with opened("run", resume_run_id=recorder.run_id) as (recorder, build):
        with build(recorder, on_event=on_event):
            pass
    assert reports == [(2, 3, None)]
