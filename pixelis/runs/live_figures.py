"""The curriculum's figures while a training goes on: drawn beside it, after each attempt.

`LiveFigures` stands in front of the recorder. It keeps the metrics and events that pass and draws
in one thread of its own, off the training's; what is drawn stands instead of what was.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from pixelis.curriculum import CurriculumConfig
from pixelis.figures import (
    Chart,
    FigureSettings,
    as_figure,
    as_page,
    build_history,
    loss_by_difficulty,
    samples_drawn,
    timeline,
)
from pixelis.tracking import MlflowRecorder

DRAWN = ("trial", "advance", "rollback", "hold", "restore")
CHARTS = {
    "timeline": timeline,
    "samples_drawn": samples_drawn,
    "loss_by_difficulty": loss_by_difficulty,
}
History = Mapping[str, list[tuple[int, float]]]
# Of all metrics, those that a figure is drawn from.
KEPT = ("eval/", "train/loss", "curriculum/mix/")


def curriculum_rules(curriculum: CurriculumConfig, examples_per_step: int) -> FigureSettings:
    """What the figures need to know of a curriculum."""
    strategy = curriculum.strategy_class
    decides = strategy.rolls_back and curriculum.rollback_enabled
    return FigureSettings(
        metric=curriculum.performance_metric,
        has_stages=strategy.uses_stages,
        min_performance=curriculum.min_performance_for_advance if decides else None,
        rollback_threshold=curriculum.rollback_threshold if decides else None,
        restores_weights=curriculum.rollback_scope == "data+weights",
        examples_per_step=examples_per_step,
    )


def record_chart(recorder: MlflowRecorder, chart: Chart, name: str) -> None:
    """Keep a chart as `<name>.png` and as the page `<name>.html`."""
    recorder.figure(f"{name}.png", as_figure(chart))
    recorder.text(as_page(chart, Path(name).name.replace("_", " ")), f"{name}.html")


class LiveFigures:
    """A `pixelis.recorder.Recorder` in front of another; leaving it as a context draws the last."""

    def __init__(
        self,
        recorder: MlflowRecorder,
        *,
        max_steps: int,
        rules: FigureSettings,
        story: Callable[..., None] = lambda events, step, error: None,
    ) -> None:
        """Pass everything on to `recorder`.

        `story` is called after each event, with all of them, the newest step, and what ended
        training, if anything did.
        """
        self._recorder = recorder
        self._max_steps, self._rules, self._story = max_steps, rules, story
        self._events: list[dict[str, Any]] = []
        self._history: dict[str, list[tuple[int, float]]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="figures")
        self._newest: Future[None] | None = None
        self._warned, self._step = False, 0
        self.artifact, self.figure = recorder.artifact, recorder.figure

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep what is drawn, and pass all on."""
        self._recorder.metrics(values, step)
        self._step = max(self._step, step)
        for key, value in values.items():
            if key.startswith(KEPT):
                self._history.setdefault(key, []).append((step, value))

    def event(self, event: Mapping[str, Any]) -> None:
        """Pass an event on; after an attempt, draw."""
        self._recorder.event(event)
        self._events.append(dict(event))
        self._tell()
        if event["kind"] in DRAWN:
            self._draw_soon()

    def restore_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Start from the events of the training that is resumed; its metrics are told again."""
        self._recorder.restore_events(events)
        self._events = [dict(event) for event in events]
        self._tell()

    def __enter__(self) -> "LiveFigures":
        """Nothing to do before the first attempt."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw where training came to, however it ended, and wait for it."""
        if self._events:
            self._draw_soon()
            if error is not None:
                self._tell(error)
        self._thread.shutdown(wait=True)

    def _tell(self, error: BaseException | None = None) -> None:
        step = max(self._step, int(self._events[-1]["step"]))
        self._story(list(self._events), step=step, error=error)

    def _draw_soon(self) -> None:
        if self._newest is not None:
            self._newest.cancel()  # what has not begun would be drawn over at once
        history = {key: list(values) for key, values in self._history.items()}
        self._newest = self._thread.submit(self._draw, list(self._events), history)

    def _draw(self, events: list[dict[str, Any]], history: History) -> None:
        try:
            course = build_history(events, history, max_steps=self._max_steps, rules=self._rules)
            for name, chart in CHARTS.items():
                record_chart(self._recorder, chart(course), f"curriculum/{name}")
        # Whatever a drawing library does not like is no reason to stop a training.
        except Exception as error:
            if not self._warned:
                self._warned = True
                print(
                    "pixelis: warning: the curriculum's figures cannot be drawn "
                    f"({type(error).__name__}: {error}); the training goes on",
                    file=sys.stderr,
                )
