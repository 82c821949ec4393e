"""Figures drawn beside a training: a real run, and the events and metrics of a short curriculum."""

import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.figures import FigureSettings
from pixelis.recorder import NullRecorder
from pixelis.runs.live_figures import LiveFigures, curriculum_rules
from pixelis.tracking import open_run

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


@contextmanager
def opened(name):
    words = {"entry_point": "sft", "experiment": "figures", "params": {}, "tags": {}}
    with open_run(**words, run_name=name, system_metrics=False) as recorder:
        yield recorder


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
    with opened("whole") as recorder, LiveFigures(recorder, max_steps=6, rules=RULES) as figures:
        tell(figures, range(7))
    return content(client, recorder.run_id)


def test_a_run_has_every_figure_as_image_and_as_page(whole):
    assert set(whole) == {
        "events.json",
        *(f"{name}.{kind}" for name in NAMES for kind in ("png", "html")),
    }
    assert all(whole[f"{name}.png"].startswith(b"\x89PNG") for name in NAMES)
    assert b"<title>samples drawn</title>" in whole["samples_drawn.html"]


def test_after_a_resume_the_figures_are_those_of_a_whole_training(client, whole):
    with opened("first") as recorder, LiveFigures(recorder, max_steps=6, rules=RULES) as figures:
        tell(figures, range(4))
    stopped = content(client, recorder.run_id)
    assert stopped["timeline.html"] != whole["timeline.html"]
    with opened("second") as recorder, LiveFigures(recorder, max_steps=6, rules=RULES) as figures:
        figures.restore_events(EVENTS[:2])
        told = LiveFigures(NullRecorder(), max_steps=6, rules=RULES)
        told.event = lambda event: None
        told.metrics = figures.metrics
        tell(told, range(4))  # metrics, as a checkpoint tells them again
        tell(figures, range(4, 7))
    assert content(client, recorder.run_id) == whole


class Slow(NullRecorder):
    """Holds the first drawing up until it is told to go on."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.pages, self.threads = [], set()

    def figure(self, name, figure):
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.go_on.wait(60)

    def text(self, page, name):
        self.pages.append((name, page))


def test_attempts_are_drawn_in_another_thread_and_the_newest_wins():
    slow = Slow()
    with LiveFigures(slow, max_steps=6, rules=RULES) as figures:
        tell(figures, range(3))
        assert slow.begun.wait(60)
        tell(figures, range(3, 7))  # an advance, which waits, and is drawn over by the end
        slow.go_on.set()
    assert slow.threads == {"figures_0"}
    timelines = [page for name, page in slow.pages if name == "curriculum/timeline.html"]
    assert len(timelines) == 2
    assert "step 4: advance" not in timelines[0] and "step 4: advance" in timelines[1]


class Broken(NullRecorder):
    def figure(self, name, figure):
        raise RuntimeError("no ink")


def test_what_cannot_be_drawn_is_said_once_and_stops_nothing(capsys):
    with LiveFigures(Broken(), max_steps=6, rules=RULES) as figures:
        tell(figures, range(7))
    assert capsys.readouterr().err == (
        "pixelis: warning: the curriculum's figures cannot be drawn (RuntimeError: no ink); "
        "the training goes on\n"
    )


def test_without_an_event_there_is_nothing_to_draw():
    with LiveFigures(Broken(), max_steps=6, rules=RULES):
        pass


@pytest.mark.parametrize(
    ("settings", "minimum", "threshold", "has_stages"),
    [
        ({}, 0.6, -0.05, True),
        ({"rollback_enabled": False}, None, None, True),
        ({"strategy": "competence"}, None, None, False),
        ({"enabled": False}, None, None, True),
    ],
)
def test_only_thresholds_that_decide_are_drawn(settings, minimum, threshold, has_stages):
    rules = curriculum_rules(CurriculumConfig.from_dict(settings), 16)
    assert (rules.min_performance, rules.rollback_threshold) == (minimum, threshold)
    assert (rules.has_stages, rules.examples_per_step) == (has_stages, 16)
    assert rules.metric == "token_accuracy"


def test_the_story_is_told_after_each_event_after_a_resume_and_at_an_end_that_came_too_early():
    told = []

    def story(events, *, step, error):
        told.append((len(events), step, error))

    failure = ValueError("diverged")
    with pytest.raises(ValueError, match="diverged"):
        with LiveFigures(NullRecorder(), max_steps=6, rules=RULES, story=story) as figures:
            tell(figures, range(4))
            raise failure
    assert told == [(1, 0, None), (2, 2, None), (2, 3, failure)]
    told.clear()
    NullRecorder.restore_events = lambda self, events: None
    try:
        again = LiveFigures(NullRecorder(), max_steps=6, rules=RULES, story=story)
        again.restore_events(EVENTS[:2])
    finally:
        del NullRecorder.restore_events
    assert told == [(2, 2, None)]
