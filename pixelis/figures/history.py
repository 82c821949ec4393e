"""The course of one training: everything that its figures are drawn from, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.figures.downsample import thin_events, thin_points, thin_rows
from pixelis.figures.stage_visits import Event

Strata = Sequence[tuple[int, Mapping[str, float]]]
History = Mapping[str, Sequence[tuple[int, float]]]  # metric -> its values by step

MIX = "curriculum/mix/"
TRAINING_LOSS = "train/loss"


@dataclass(frozen=True)
class FigureSettings:
    """What of a curriculum's settings its figures need."""

    metric: str = "performance"
    has_stages: bool = True
    min_performance: float | None = None
    rollback_threshold: float | None = None
    restores_weights: bool = False
    examples_per_step: int = 1


@dataclass(frozen=True)
class TrainingHistory:
    """How a training went until now.

    Attributes:
        events: As `CurriculumEvent.to_dict` gives them.
        strata: Performance by difficulty at the steps where it was measured.
        losses: Validation loss by difficulty, at the same steps.
        training_loss: By step.
        mixes: The mix that held after a step, wherever it changed.
        max_steps: The last step of the x axis.
        reached: The step that training has come to.
        num_events: Those that there were; of very many, `events` has those that can be told apart.
    """

    events: Sequence[Event]
    strata: Strata
    losses: Strata
    training_loss: Sequence[tuple[int, float]]
    mixes: Strata
    max_steps: int
    reached: int
    rules: FigureSettings = FigureSettings()
    num_events: int = 0


def build_history(
    events: Sequence[Event], history: History, *, max_steps: int, rules: FigureSettings
) -> TrainingHistory:
    """Read the course from what was recorded: events, and metrics under their names in MLflow.

    A very long one is thinned out (`pixelis.figures.downsample`), except for its mixes.
    """
    names = _difficulties(events, history)
    strata = _by_step(history, {f"eval/{name}/{rules.metric}": name for name in names})
    told = _by_step(history, {f"{MIX}{name}": name for name in names})
    mixes = dict(told) | {int(event["step"]): event["mix"] for event in events}
    steps = [step for values in history.values() for step, _ in values]
    measured: Strata = _with_restored(strata, events) if rules.restores_weights else strata
    shown = thin_events(events)
    ends = {int(event["step"]) for event in shown}
    return TrainingHistory(
        events=shown,
        strata=thin_rows(measured, keep=ends),
        losses=thin_rows(_by_step(history, {f"eval/{name}/loss": name for name in names})),
        training_loss=thin_points(history.get(TRAINING_LOSS, ())),
        mixes=sorted(mixes.items()),
        max_steps=max_steps,
        reached=max([0, *steps, *(int(event["step"]) for event in events)]),
        rules=rules,
        num_events=len(events),
    )


def _difficulties(events: Sequence[Event], history: History) -> list[str]:
    """All difficulties: those of the mixes in their order, easy to hard, then what else is."""
    mixed = [name for event in events for name in event["mix"]]
    losses = [key for key in sorted(history) if key.startswith("eval/") and key.endswith("/loss")]
    return list(dict.fromkeys([*mixed, *(key.split("/")[1] for key in losses)]))


def _by_step(history: History, names: Mapping[str, str]) -> list[tuple[int, dict[str, float]]]:
    """The values of several metrics side by side, under new names, in the order of steps."""
    found: dict[int, dict[str, float]] = {}
    for key, name in names.items():
        for step, value in history.get(key, ()):
            found.setdefault(step, {})[name] = value
    return sorted(found.items())


def _with_restored(strata: Strata, events: Sequence[Event]) -> Strata:
    """The strata, and after each rollback those of the weights that it put back."""
    found = list(strata)
    trial: Mapping[str, Any] = {}
    for event in events:
        if event["kind"] == "rollback" and trial.get("strata"):
            found.append((int(event["step"]), trial["strata"]))
        if event["kind"] != "restore":  # which leaves a trial open
            trial = event if event["kind"] == "trial" else {}
    return sorted(found, key=lambda each: each[0])  # stable: after what was measured there
