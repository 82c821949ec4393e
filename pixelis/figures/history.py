"""The history of one training, from which its figures are drawn.

A very long history is reduced to what a figure of a thousand pixels can show. Every extreme is
kept; all points are still in the run's metrics and in curriculum/events.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Event = Mapping[str, Any]
Strata = Sequence[tuple[int, Mapping[str, float]]]  # (step, difficulty -> value)
MetricHistory = Mapping[str, Sequence[tuple[int, float]]]  # metric -> (step, value)

MIX = "curriculum/mix/"
TRAINING_LOSS = "train/loss"
MAX_ROWS = 2000  # up to this number, every point is drawn
NUM_BUCKETS = 250  # of rows; each keeps its extremes
MAX_EVENTS = 400


@dataclass(frozen=True)
class FigureSettings:
    """The settings of a curriculum that its figures depend on."""

    metric: str = "performance"
    has_stages: bool = True
    min_performance: float | None = None
    rollback_threshold: float | None = None
    restores_weights: bool = False
    examples_per_step: int = 1


@dataclass(frozen=True)
class TrainingHistory:
    """The measurements and events of a training up to now."""

    events: Sequence[Event]  # as `CurriculumEvent.to_dict` returns them
    strata: Strata  # performance by difficulty at the steps of evaluations
    losses: Strata  # validation loss by difficulty, at the same steps
    training_loss: Sequence[tuple[int, float]]
    mixes: Strata  # the mix after a step, wherever it changed
    max_steps: int  # the end of the x axis
    reached: int  # the newest step
    rules: FigureSettings = FigureSettings()
    num_events: int = 0  # of all events; `events` may have fewer of a very long training


@dataclass(frozen=True)
class StageSpan:
    """A span of steps under one stage and one mix; `trial`: the mix is the next stage's."""

    stage: str
    begin: int
    end: int
    mix: Mapping[str, float]
    trial: bool


def build_history(
    events: Sequence[Event], metrics: MetricHistory, *, max_steps: int, rules: FigureSettings
) -> TrainingHistory:
    """Build the history from recorded events, and metrics under their names in MLflow."""
    # The difficulties of the mixes in their order, easy to hard, then others.
    mixed = [name for event in events for name in event["mix"]]
    keys = [key.split("/") for key in sorted(metrics)]
    measured = [key[1] for key in keys if key[0] == "eval" and key[2:] == ["loss"]]
    names = list(dict.fromkeys([*mixed, *measured]))
    strata: Strata = _by_step(metrics, {f"eval/{name}/{rules.metric}": name for name in names})
    if rules.restores_weights:
        strata = _with_restored(strata, events)
    mixes = dict(_by_step(metrics, {f"{MIX}{name}": name for name in names}))
    mixes |= {int(event["step"]): event["mix"] for event in events}
    shown = downsample_events(events)
    training_loss = downsample_rows(_by_step(metrics, {TRAINING_LOSS: TRAINING_LOSS}))
    steps = [step for values in metrics.values() for step, _ in values]
    return TrainingHistory(
        events=shown,
        strata=downsample_rows(strata, keep={int(event["step"]) for event in shown}),
        losses=downsample_rows(_by_step(metrics, {f"eval/{name}/loss": name for name in names})),
        training_loss=[(step, values[TRAINING_LOSS]) for step, values in training_loss],
        mixes=sorted(mixes.items()),
        max_steps=max_steps,
        reached=max([0, *steps, *(int(event["step"]) for event in events)]),
        rules=rules,
        num_events=len(events),
    )


def stage_spans(events: Sequence[Event], max_steps: int) -> list[StageSpan]:
    """Return the spans between the changes of stage and mix; the last one ends at `max_steps`."""
    spans: list[StageSpan] = []
    current: StageSpan | None = None
    mix_before_trial: Mapping[str, float] = {}
    for event in events:
        kind, step, mix = event["kind"], int(event["step"]), event["mix"]
        if kind in ("start", "advance"):
            stage = str(event["to_stage"] or event["from_stage"])
            following = StageSpan(stage, step, step, mix, False)
        elif kind == "trial" and current:
            # The mix is the next stage's already, while the stage is still the old one.
            mix_before_trial = current.mix
            following = StageSpan(current.stage, step, step, mix, True)
        elif kind == "rollback" and current and current.trial:
            following = StageSpan(current.stage, step, step, mix_before_trial, False)
        else:
            continue
        if current and step > current.begin:
            spans.append(replace(current, end=step))
        current = following
    if current and max_steps > current.begin:
        spans.append(replace(current, end=max_steps))
    return spans


def _by_step(
    metrics: MetricHistory, names: Mapping[str, str]
) -> list[tuple[int, dict[str, float]]]:
    """Join several metrics by step, under new names."""
    rows: dict[int, dict[str, float]] = {}
    for key, name in names.items():
        for step, value in metrics.get(key, ()):
            rows.setdefault(step, {})[name] = value
    return sorted(rows.items())


def _with_restored(strata: Strata, events: Sequence[Event]) -> Strata:
    """Add the strata of the restored weights after each rollback of a trial."""
    rows = list(strata)
    trial: Event = {}
    for event in events:
        if event["kind"] == "rollback" and trial.get("strata"):
            rows.append((int(event["step"]), trial["strata"]))
        if event["kind"] != "extend":
            trial = event if event["kind"] == "trial" else {}
    return sorted(rows, key=lambda row: row[0])  # stable: after what was measured at that step


def downsample_rows(rows: Strata, *, keep: Iterable[int] = ()) -> Strata:
    """Keep the first and last row of each of 250 buckets, and the extremes of each name in it.

    Args:
        rows: values by name, in the order of steps; up to 2,000 are returned unchanged.
        keep: steps whose rows are always kept.
    """
    if len(rows) <= MAX_ROWS:
        return rows
    kept_steps = set(keep)
    chosen = {index for index, (step, _) in enumerate(rows) if step in kept_steps}
    size = -(-len(rows) // NUM_BUCKETS)
    for start in range(0, len(rows), size):
        bucket = range(start, min(start + size, len(rows)))
        chosen |= {bucket[0], bucket[-1]}
        for name in {name for index in bucket for name in rows[index][1]}:
            values = {index: rows[index][1][name] for index in bucket if name in rows[index][1]}
            chosen |= {min(values, key=values.__getitem__), max(values, key=values.__getitem__)}
    return [rows[index] for index in sorted(chosen)]


def downsample_events(events: Sequence[Event]) -> Sequence[Event]:
    """Keep every change of stage and hold, and other events evenly, about 400 together.

    A trial stays together with its extension and decision, so the sequence of stages is unchanged.
    """
    if len(events) <= MAX_EVENTS:
        return events
    groups: list[list[Event]] = [[]]
    for event in events:
        groups[-1].append(event)
        if event["kind"] not in ("trial", "extend"):
            groups.append([])
    groups = [group for group in groups if group]
    every = -(-2 * len(groups) // MAX_EVENTS)
    kept = [g for i, g in enumerate(groups) if i % every == 0 or _is_essential(g[-1])]
    return [event for group in kept for event in group]


def _is_essential(event: Event) -> bool:
    if event["kind"] == "advance":
        return bool(event["from_stage"] != event["to_stage"])
    return bool(event["kind"] != "rollback")
