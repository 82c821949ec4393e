"""The comparison of arms: means over seeds with 95 % intervals, gains over first arm and base.

Each seed is one independent training. Intervals are Student's t over the seeds' values; they cover
the variation of training, order, validation subset and test examples, which depend on the seed. The
untrained base is measured on the test examples of each seed; its interval covers those alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelis.errors import CheckpointError
from pixelis.experiments.estimate import Estimate, estimate
from pixelis.figures import COLOURS, fit_fonts

ALL, BASE = "all", "base"
NO_WINNER = "no arm beats the base"
ALL_ALIKE = f"{NO_WINNER}: this budget cannot tell arms apart"
ONE_SEED = "one seed has no interval: it cannot tell whether an arm beats the base"
SIZE = (12.0, 5.6)  # inches at 100 dots: 1200 x 560 pixels
# The first arm, with which the others are compared, is black.
PALETTE = ("#222222", *COLOURS, "#999933")
BASE_COLOUR = "#b0b7bf"
Mix = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """The result of one training of an arm."""

    arm: str
    seed: int  # seed of adapter, order, validation subset and test examples
    # Answer accuracy of the final adapter's rollouts by difficulty, and `all`, in [0, 1]; empty
    # without a test.
    test: Mapping[str, float]
    # (step, strata) in order, on the validation subset.
    evaluations: Sequence[tuple[int, Mapping[str, float]]]
    num_tokens: int  # trained tokens, without padding
    seconds: float  # wall time of training and test, since the last resume if there was one

    def final_performance(self, mix: Mix) -> float:
        """Return the last evaluation's performance on a mix."""
        return performance(mix, self.evaluations[-1][1])

    def curve(self, mix: Mix, every: int) -> dict[int, float]:
        """Return step -> performance on a mix, at the multiples of `every` and at the last step.

        Evaluations between them are left out, because only a curriculum makes them.
        """
        last = self.evaluations[-1][0]
        return {
            step: performance(mix, strata)
            for step, strata in self.evaluations
            if step % every == 0 or step == last
        }

    def steps_to(self, target: float, mix: Mix, every: int) -> int | None:
        """Return the first step of the curve that reaches a target, or None."""
        curve = self.curve(mix, every).items()
        return next((step for step, value in curve if value >= target), None)


def performance(mix: Mix, strata: Mapping[str, float]) -> float:
    """Return the mean of the strata, weighted by a mix."""
    return sum(share * strata[name] for name, share in mix.items() if share > 0)


def read_outcome(arm: str, seed: int, finished: Mapping[str, Any], path: str) -> Outcome:
    """Build an outcome from the content of a training's `finished.json`.

    Raises:
        CheckpointError: When the file holds no results, naming the path.
    """
    try:
        results = finished["results"]
        results["strata"][-1]  # there is an evaluation at least
        return Outcome(
            arm,
            seed,
            test=dict(results["test"]),
            evaluations=[(int(step), dict(strata)) for step, strata in results["strata"]],
            num_tokens=int(results["num_tokens"]),
            seconds=float(results["seconds"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} holds no results of a training; move it away to have it made again"
        ) from error


@dataclass(frozen=True)
class ArmRow:
    """The results of one arm, or of the untrained base, over the seeds."""

    arm: str
    num_seeds: int
    accuracy: Mapping[str, Estimate]  # test answer accuracy by difficulty, and `all`, in [0, 1]
    # Accuracy minus the first arm's, seed by seed; empty for the first arm.
    gain: Mapping[str, Estimate]
    # Accuracy minus the base's, seed by seed on the same examples; empty for the base.
    over_base: Mapping[str, Estimate]
    # Mean over all seeds, where a seed that did not reach the target counts with `max_steps`: the
    # restricted mean (Royston and Parmar 2013), a lower bound of the mean. None if no seed reached
    # the target.
    steps_to_target: Estimate | None
    num_reached: int
    # Validation performance on the last stage's mix after the last step; None for the base.
    performance: Estimate | None
    # Step -> mean of this performance, at each step that all seeds measured.
    curve: Mapping[int, float]
    num_tokens: float
    seconds: float


@dataclass(frozen=True)
class AblationTable:
    """All arms, in their order, and the target performance of `steps_to_target`."""

    rows: tuple[ArmRow, ...]
    target: float
    base: ArmRow | None = None  # the untrained base, if it was measured

    @property
    def all_rows(self) -> tuple[ArmRow, ...]:
        """The base, if it was measured, and the arms."""
        return self.rows if self.base is None else (self.base, *self.rows)

    @property
    def verdict(self) -> str:
        """Which arms beat the base: the interval of their gain over it is above 0.

        If none does, it also says whether any arm's gain over the first arm has an interval
        without 0.
        """
        if self.base is None:
            return ""
        if self.base.num_seeds == 1:
            return ONE_SEED
        winners = [row.arm for row in self.rows if row.over_base[ALL].low > 0]
        count = f"{len(winners)} of {len(self.rows)} arms beat the base"
        if winners:
            return f"{count}: {', '.join(winners)}"
        gains = [row.gain[ALL] for row in self.rows[1:]]
        return NO_WINNER if any(each.low > 0 or each.high < 0 for each in gains) else ALL_ALIKE


def compare_arms(
    outcomes: Mapping[str, Sequence[Outcome]],
    mix: Mix,
    share: float,
    *,
    eval_steps: int,
    max_steps: int,
    base: Sequence[Mapping[str, float]] = (),
) -> AblationTable:
    """Compute each arm's means and intervals, and its gain over the first arm and the base.

    Args:
        outcomes: Arm -> its trainings in the order of seeds, which all arms share.
        mix: The last stage's mix, on which performance is measured.
        share: The target as a share of the first arm's mean final performance, after Platanios
            et al. (2019), who report the time to reach the baseline's score.
        eval_steps: Steps between the evaluations that all arms have.
        max_steps: Steps of a training.
        base: The untrained base's test accuracies by seed, in the arms' order; none if unknown.
    """
    first = next(iter(outcomes.values()))
    target = share * fmean(outcome.final_performance(mix) for outcome in first)
    rows = []
    for arm, runs in outcomes.items():
        assert [run.seed for run in runs] == [run.seed for run in first], "arms share their seeds"
        curves = [run.curve(mix, eval_steps) for run in runs]
        reached = [run.steps_to(target, mix, eval_steps) for run in runs]
        num_reached = sum(step is not None for step in reached)
        steps = [float(max_steps if step is None else step) for step in reached]
        tests = [run.test for run in runs]
        rows.append(
            ArmRow(
                arm=arm,
                num_seeds=len(runs),
                accuracy=_means(tests),
                gain={} if runs is first else _gains(tests, [run.test for run in first]),
                over_base=_gains(tests, base) if base else {},
                steps_to_target=estimate(steps) if num_reached else None,
                num_reached=num_reached,
                performance=estimate([run.final_performance(mix) for run in runs]),
                curve={
                    step: fmean(curve[step] for curve in curves)
                    for step in curves[0]
                    if all(step in curve for curve in curves)
                },
                num_tokens=fmean(run.num_tokens for run in runs),
                seconds=fmean(run.seconds for run in runs),
            )
        )
    base_row = _base_row(base, [run.test for run in first]) if base else None
    return AblationTable(tuple(rows), target, base_row)


def _base_row(base: Sequence[Mapping[str, float]], first: Sequence[Mapping[str, float]]) -> ArmRow:
    return ArmRow(
        arm=BASE,
        num_seeds=len(base),
        accuracy=_means(base),
        gain=_gains(base, first),
        over_base={},
        steps_to_target=None,
        num_reached=0,
        performance=None,
        curve={},
        num_tokens=0,
        seconds=0,
    )


def _means(tests: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """Return the mean of each name over the seeds."""
    return {name: estimate([test[name] for test in tests]) for name in tests[0]}


def _gains(
    tests: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]
) -> dict[str, Estimate]:
    """Return the mean difference of each name, seed by seed."""
    pairs = list(zip(tests, others, strict=True))
    return {name: estimate([a[name] - b[name] for a, b in pairs]) for name in tests[0]}


def choose_learning_rate(outcomes: Mapping[float, Sequence[Outcome]], mix: Mix) -> float:
    """Return the rate with the best mean final validation performance, the first among equals."""
    return max(
        outcomes, key=lambda rate: fmean(run.final_performance(mix) for run in outcomes[rate])
    )


def arms_rows(table: AblationTable) -> list[dict[str, Any]]:
    """Return one flat dict per row; shares are in [0, 1], intervals end in `_low` and `_high`."""
    rows = []
    for row in table.all_rows:
        estimates = {f"test_{name}": value for name, value in row.accuracy.items()}
        estimates |= {f"gain_{name}": value for name, value in row.gain.items()}
        estimates |= {f"over_base_{name}": value for name, value in row.over_base.items()}
        flat: dict[str, Any] = {"arm": row.arm, "seeds": row.num_seeds, **_flat(estimates)}
        if row.performance is not None:
            flat |= {**_flat({"validation": row.performance}), "reached_target": row.num_reached}
        if row.steps_to_target is not None:
            flat |= _flat({"steps_to_target": row.steps_to_target})
        rows.append(flat | {"num_tokens": row.num_tokens, "seconds": row.seconds})
    return rows


def _flat(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for key, value in estimates.items():
        finite = math.isfinite(value.half)
        flat[key] = value.mean
        flat[f"{key}_low"] = value.low if finite else None
        flat[f"{key}_high"] = value.high if finite else None
    return flat


def arms_markdown(table: AblationTable) -> str:
    """Return the table as Markdown: accuracies in percent, gains in points, with intervals."""
    names = list(table.rows[0].accuracy)
    heads = ["arm", *(f"{name} %" for name in names), f"{ALL}: gain in points"]
    heads += [f"{ALL}: over base"] if table.base is not None else []
    heads += [f"steps to {table.target:.3f}", "k tokens", "s a run"]
    lines = [heads, ["---"] * len(heads)]
    for row in table.all_rows:
        cells = [row.arm]
        cells += [_cell(value, ".1f", 100) for value in row.accuracy.values()]
        gains = [row.gain, *([row.over_base] if table.base is not None else [])]
        cells += [_gain_cell(gain.get(ALL)) for gain in gains]
        if row is table.base:
            cells += ["not trained", "0", ""]
        else:
            cells += [_steps_cell(row), f"{row.num_tokens / 1000:.0f}", f"{row.seconds:.0f}"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _gain_cell(gain: Estimate | None) -> str:
    return "" if gain is None else _cell(gain, "+z.1f", 100)


def _cell(value: Estimate, spec: str, factor: float = 1) -> str:
    """Return a mean and half its interval, if there is one, as in "34.1 ± 6.5"."""
    mean, half = f"{factor * value.mean:{spec}}", f"{factor * value.half:{spec.lstrip('+')}}"
    return mean if math.isinf(value.half) else f"{mean} ± {half}"


def _steps_cell(row: ArmRow) -> str:
    count, steps = f"({row.num_reached} of {row.num_seeds})", row.steps_to_target
    if steps is None:
        return f"not reached {count}"
    bound = "≥ " if row.num_reached < row.num_seeds else ""
    return f"{bound}{_cell(steps, '.0f')} {count}"


def ablation_figure(table: AblationTable, *, metric: str, steps: int) -> Figure:
    """Draw test accuracy by arm on the left, and the validation curves of a metric on the right.

    The figure has 1200 x 560 pixels; the curves are drawn up to `steps` optimiser steps.
    """
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(table.rows))]
    base_colours = [] if table.base is None else [BASE_COLOUR]
    _draw_accuracies(left, table.all_rows, [*base_colours, *colours])
    _draw_curves(right, table, colours)
    right.set_xlim(0, max(steps, *(step for row in table.rows for step in row.curve)))
    name = metric.replace("_", " ")
    right.set_ylabel(f"validation {name} on the last stage's mix (0 to 1); mean")
    for axes in (left, right):
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False
    )
    fit_fonts(figure)
    return figure


def _draw_accuracies(axes: Axes, rows: Sequence[ArmRow], colours: Sequence[str]) -> None:
    groups = [name for name in rows[0].accuracy if name != ALL] + [ALL]
    width = 0.8 / len(rows)
    for i, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        values = [row.accuracy[name] for name in groups]
        axes.errorbar(
            [x + (i - (len(rows) - 1) / 2) * width for x in range(len(groups))],
            [value.mean for value in values],
            [0.0 if math.isinf(value.half) else min(value.half, 1.0) for value in values],
            fmt="o",
            color=colour,
            markersize=5,
            capsize=3,
            label=row.arm,
        )
    axes.set_xticks(range(len(groups)), groups)
    for edge in range(len(groups) - 1):
        axes.axvline(edge + 0.5, color="#e6e6e6", zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("difficulty of the test examples")
    num_seeds = rows[0].num_seeds
    what = "one seed" if num_seeds == 1 else f"mean of {num_seeds} seeds, 95 % interval"
    axes.set_ylabel(f"test answer accuracy (0 to 1); {what}")


def _draw_curves(axes: Axes, table: AblationTable, colours: Sequence[str]) -> None:
    for row, colour in zip(table.rows, colours, strict=True):
        axes.plot([*row.curve], [*row.curve.values()], color=colour, linewidth=1.8)
    axes.axhline(table.target, color="#444444", linestyle=":")
    axes.annotate(
        f"target {table.target:.3f}",
        (1, table.target),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=9,
    )
    axes.set_xlabel("optimiser step")
