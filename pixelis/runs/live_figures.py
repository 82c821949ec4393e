"""Files that show a running training: events.json, timeline.png and the curriculum's figures.

All are made from the run's journal. After each attempt to advance, a thread draws new figures,
which replace the older ones.
"""

import io
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pixelis.curriculum import TRIAL_KINDS, CurriculumConfig
from pixelis.figures import (
    Chart,
    FigureSettings,
    as_figure,
    as_page,
    build_history,
    loss_by_difficulty,
    samples_drawn,
    timeline,
    titled,
)
from pixelis.files import write_atomic
from pixelis.tracking import MlflowRecorder

DRAWN = (*TRIAL_KINDS, "advance", "rollback", "hold")
CHARTS = {
    "timeline": timeline,
    "samples_drawn": samples_drawn,
    "loss_by_difficulty": loss_by_difficulty,
}
History = Mapping[str, list[tuple[int, float]]]
# Beginnings of the names of metrics that a figure is drawn from.
DRAWN_METRICS = ("eval/", "train/loss", "curriculum/mix/")
EVENTS_FILE, TIMELINE_FILE = "events.json", "timeline.png"


def curriculum_rules(curriculum: CurriculumConfig, examples_per_step: int) -> FigureSettings:
    """Return the figures' settings for a curriculum."""
    strategy = curriculum.strategy_class
    decides = strategy.rolls_back and curriculum.rollback_enabled
    by_delta = decides and curriculum.decision == "guide"
    return FigureSettings(
        metric=curriculum.performance_metric,
        has_stages=strategy.uses_stages,
        min_performance=curriculum.min_performance_for_advance if decides else None,
        rollback_threshold=curriculum.rollback_threshold if by_delta else None,
        restores_weights=curriculum.rollback_scope == "data+weights",
        examples_per_step=examples_per_step,
    )


def record_chart(recorder: MlflowRecorder, chart: Chart, name: str) -> None:
    """Record a chart as `<name>.png` and as the page `<name>.html`."""
    recorder.figure(f"{name}.png", as_figure(chart))
    recorder.text(as_page(chart, Path(name).name.replace("_", " ")), f"{name}.html")


class LiveFigures:
    """A `pixelis.recorder.Recorder` that passes records on and draws figures.

    As a context manager, it draws the last figures at its end.
    """

    def __init__(
        self,
        recorder: MlflowRecorder,
        *,
        output_dir: Path,
        max_steps: int,
        rules: FigureSettings,
        about: str = "",
        on_event: Callable[..., None] = lambda events, step, error: None,
    ) -> None:
        """Set the recorder, and read the records that its journal already holds.

        `rules` are of `curriculum_rules`; `about` is in the figures' titles. `on_event` is called
        after each event, and after a resume, with all events, the newest step and the error that
        ended training, if any.
        """
        self._recorder, self._events_path = recorder, output_dir / EVENTS_FILE
        self._max_steps, self._rules, self._on_event = max_steps, rules, on_event
        self._about = about
        self._events: list[dict[str, Any]] = []
        self._history: dict[str, list[tuple[int, float]]] = {}  # of the metrics in the figures
        self._step = self._position = 0  # the newest step; how far the journal was read
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="figures")
        self._newest: Future[None] | None = None
        self.artifact, self.figure = recorder.artifact, recorder.figure
        self.metrics, self.position = recorder.metrics, recorder.position
        self._update()
        if self._events:
            self._report()

    def event(self, event: Mapping[str, Any]) -> None:
        """Record an event; after an attempt to advance, draw the figures."""
        self._recorder.event(event)
        self._update()
        self._report()
        if event["kind"] in DRAWN:
            self._draw_soon()

    def __enter__(self) -> "LiveFigures":
        """Return this object."""
        return self

    def __exit__(self, *raised: Any) -> None:
        """Draw the last figures, however training ended, and wait for them."""
        self._update()
        if self._events:
            self._draw_soon()
            if raised[1] is not None:
                self._report(raised[1])
        self._thread.shutdown(wait=True)

    def _update(self) -> None:
        """Read the new records of the journal, and write `events.json`."""
        num_events = len(self._events)
        for record, end in self._recorder.journal.read(self._position):
            self._position = end
            if record is not None and record.kind == "event":
                self._events.append(record.value)
            elif record is not None and record.kind == "metric" and record.name[:7] != "system/":
                self._step = max(self._step, record.step)
                if record.name.startswith(DRAWN_METRICS):
                    self._history.setdefault(record.name, []).append((record.step, record.value))
        if len(self._events) > num_events:
            write_atomic(self._events_path, json.dumps(self._events, indent=2))

    def _report(self, error: BaseException | None = None) -> None:
        step = max(self._step, int(self._events[-1]["step"]))
        self._on_event(list(self._events), step=step, error=error)

    def _draw_soon(self) -> None:
        if self._newest is not None:
            self._newest.cancel()  # if it has not started: newer figures would replace it at once
        history = {key: list(values) for key, values in self._history.items()}
        self._newest = self._thread.submit(self._draw, list(self._events), history)

    def _draw(self, events: list[dict[str, Any]], history: History) -> None:
        try:
            drawn = build_history(events, history, max_steps=self._max_steps, rules=self._rules)
            charts = {
                name: titled(make(drawn), f"{name.replace('_', ' ')}: {self._about}")
                for name, make in CHARTS.items()
            }
            for name, chart in charts.items():
                record_chart(self._recorder, chart, f"curriculum/{name}")
            picture = io.BytesIO()
            as_figure(charts["timeline"]).savefig(picture, format="png")
            write_atomic(self._events_path.with_name(TIMELINE_FILE), picture.getvalue())
        # An error of a drawing library must not stop a training.
        except Exception as error:
            why = f"({type(error).__name__}: {error}); the training goes on"
            self._recorder.warn("figures", f"the curriculum's figures cannot be drawn {why}")
