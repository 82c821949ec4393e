"""Arms side by side: means over seeds with 95 % intervals, and the difference from the first arm.

Intervals are Student's t over the seeds' values (each seed is one independent training): they hold
what training, order, validation subset and test examples vary from seed to seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pixelis.experiments.ablate.outcome import Mix, Outcome
from pixelis.experiments.estimate import Estimate, estimate

ALL = "all"


@dataclass(frozen=True)
class ArmRow:
    """One arm.

    Attributes:
        arm: its name.
        num_seeds: trainings.
        accuracy: test answer accuracy by difficulty, and `all`, in [0, 1].
        gain: accuracy minus the first arm's, seed by seed; None for the first arm.
        steps_to_target: the mean over all seeds, where a seed that did not reach the target counts
            with `max_steps`: the restricted mean (Royston and Parmar 2013), a lower bound of the
            mean where some did not. None where none did.
        num_reached: how many seeds reached it.
        performance: validation performance on the last stage's mix after the last step.
        curve: (step, that performance), at each step that all seeds measured.
        num_tokens: mean tokens trained on.
        seconds: mean seconds a training.
    """

    arm: str
    num_seeds: int
    accuracy: Mapping[str, Estimate]
    gain: Mapping[str, Estimate] | None
    steps_to_target: Estimate | None
    num_reached: int
    performance: Estimate
    curve: tuple[tuple[int, Estimate], ...]
    num_tokens: float
    seconds: float


@dataclass(frozen=True)
class AblationTable:
    """All arms, in their order, and the target that their steps were counted to."""

    rows: tuple[ArmRow, ...]
    target: float
    mix: Mix


def compare(
    outcomes: Mapping[str, Sequence[Outcome]],
    mix: Mix,
    share: float,
    *,
    eval_steps: int,
    max_steps: int,
) -> AblationTable:
    """Put the arms' trainings side by side.

    Args:
        outcomes: by arm, its trainings in the order of seeds; the same seeds for all.
        mix: what performance is measured on: the last stage's.
        share: the target is this share of the first arm's mean final performance, after Platanios
            et al. (2019), who report the time to reach the baseline's score.
        eval_steps: steps between the evaluations that all arms have.
        max_steps: of a training.
    """
    first = next(iter(outcomes.values()))
    target = share * fmean(outcome.final_performance(mix) for outcome in first)
    rows = []
    for arm, runs in outcomes.items():
        curves = [dict(run.curve(mix, eval_steps)) for run in runs]
        steps = [run.steps_to(target, mix, eval_steps) for run in runs]
        rows.append(_row(arm, runs, first, mix, curves, steps, max_steps))
    return AblationTable(tuple(rows), target, mix)


def _row(
    arm: str,
    runs: Sequence[Outcome],
    first: Sequence[Outcome],
    mix: Mix,
    curves: Sequence[Mapping[int, float]],
    steps: Sequence[int | None],
    max_steps: int,
) -> ArmRow:
    assert [run.seed for run in runs] == [run.seed for run in first], "arms share their seeds"
    groups = list(runs[0].test)
    num_reached = sum(step is not None for step in steps)
    restricted = [float(max_steps if step is None else step) for step in steps]
    shared = [step for step in curves[0] if all(step in curve for curve in curves)]
    gain = None
    if runs is not first:
        gain = {
            name: estimate([a.test[name] - b.test[name] for a, b in zip(runs, first, strict=True)])
            for name in groups
        }
    return ArmRow(
        arm=arm,
        num_seeds=len(runs),
        accuracy={name: estimate([run.test[name] for run in runs]) for name in groups},
        gain=gain,
        steps_to_target=estimate(restricted) if num_reached else None,
        num_reached=num_reached,
        performance=estimate([run.final_performance(mix) for run in runs]),
        curve=tuple((step, estimate([curve[step] for curve in curves])) for step in shared),
        num_tokens=fmean(run.num_tokens for run in runs),
        seconds=fmean(run.seconds for run in runs),
    )


def choose_learning_rate(outcomes: Mapping[float, Sequence[Outcome]], mix: Mix) -> float:
    """The rate with the best mean final performance on validation; of equals, the first."""
    return max(
        outcomes, key=lambda rate: fmean(run.final_performance(mix) for run in outcomes[rate])
    )


def as_rows(table: AblationTable) -> list[dict[str, Any]]:
    """One flat dict an arm; shares are in [0, 1], intervals as `_low` and `_high`."""
    rows = []
    for row in table.rows:
        flat: dict[str, Any] = {"arm": row.arm, "seeds": row.num_seeds}
        for name, value in row.accuracy.items():
            flat |= _flat(f"test_{name}", value)
        for name, value in (row.gain or {}).items():
            flat |= _flat(f"gain_{name}", value)
        flat |= _flat("validation", row.performance)
        flat["reached_target"] = row.num_reached
        if row.steps_to_target is not None:
            flat |= _flat("steps_to_target", row.steps_to_target)
        rows.append(flat | {"num_tokens": row.num_tokens, "seconds": row.seconds})
    return rows


def _flat(key: str, value: Estimate) -> dict[str, float | None]:
    finite = math.isfinite(value.half)
    return {
        key: value.mean,
        f"{key}_low": value.low if finite else None,
        f"{key}_high": value.high if finite else None,
    }


def as_markdown(table: AblationTable) -> str:
    """The table as Markdown: accuracies in percent, gains in points, each with its interval."""
    names = list(table.rows[0].accuracy)
    heads = ["arm", *(f"{name} %" for name in names), f"{ALL}: gain in points"]
    heads += [f"steps to {table.target:.3f}", "k tokens", "s a run"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in table.rows:
        cells = [row.arm]
        cells += [f"{100 * v.mean:.1f} ± {100 * v.half:.1f}" for v in row.accuracy.values()]
        gain = None if row.gain is None else row.gain.get(ALL)
        cells.append("" if gain is None else f"{100 * gain.mean:+.1f} ± {100 * gain.half:.1f}")
        cells.append(_steps(row))
        cells += [f"{row.num_tokens / 1000:.0f}", f"{row.seconds:.0f}"]
        lines.append(_line(cells))
    return "\n".join(lines)


def _steps(row: ArmRow) -> str:
    count = f"({row.num_reached} of {row.num_seeds})"
    steps = row.steps_to_target
    if steps is None:
        return f"not reached {count}"
    half = f" ± {steps.half:.0f}" if math.isfinite(steps.half) else ""
    bound = "≥ " if row.num_reached < row.num_seeds else ""
    return f"{bound}{steps.mean:.0f}{half} {count}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
