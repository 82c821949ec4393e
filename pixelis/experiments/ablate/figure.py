"""The figure of a comparison: test accuracy by difficulty, and validation curves."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelis.experiments.ablate.comparison import ALL, AblationTable, ArmRow
from pixelis.figures import COLOURS

SIZE = (12.0, 5.6)  # inches at 100 dots: 1200 x 560 pixels
FIRST = "#222222"  # the arm that the others are compared with
MORE = ("#999933",)


def ablation_figure(table: AblationTable, *, metric: str, steps: int) -> Figure:
    """Draw test accuracy by arm on the left, and the validation curves on the right.

    Args:
        table: The comparison.
        metric: The metric of the curves, for their label.
        steps: Optimiser steps of each training.

    Returns:
        A figure of 1200 x 560 pixels.
    """
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    palette = [FIRST, *COLOURS, *MORE]
    colours = [palette[i % len(palette)] for i in range(len(table.rows))]
    _accuracies(left, table.rows, colours)
    _curves(right, table, colours, metric)
    right.set_xlim(0, max(steps, *(step for row in table.rows for step, _ in row.curve)))
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False
    )
    return figure


def _accuracies(axes: Axes, rows: Sequence[ArmRow], colours: Sequence[str]) -> None:
    groups = [name for name in rows[0].accuracy if name != ALL] + [ALL]
    width = 0.8 / len(rows)
    for i, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        at = [x + (i - (len(rows) - 1) / 2) * width for x in range(len(groups))]
        values = [row.accuracy[name] for name in groups]
        axes.errorbar(
            at,
            [value.mean for value in values],
            [min(value.half, 1.0) for value in values],
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
    axes.set_ylabel(f"test answer accuracy (0 to 1); mean of {num_seeds} seeds, 95 % interval")
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, table: AblationTable, colours: Sequence[str], metric: str) -> None:
    for row, colour in zip(table.rows, colours, strict=True):
        steps = [step for step, _ in row.curve]
        axes.plot(steps, [value.mean for _, value in row.curve], color=colour, linewidth=1.8)
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
    name = metric.replace("_", " ")
    axes.set_ylabel(f"validation {name} on the last stage's mix (0 to 1); mean")
    axes.grid(color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
