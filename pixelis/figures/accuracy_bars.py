"""Base and adapter side by side by difficulty, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pixelis.figures.chart import COLOURS, SIZE


def accuracy(table: Sequence[Mapping[str, Any]], *, metric: str = "answer accuracy") -> Figure:
    """Base and adapter side by side by difficulty, with 95 % intervals.

    Args:
        table: Rows with `difficulty`, `model` (such as `base` and `adapter`), `accuracy`, `low` and
            `high` (the interval's ends), and optionally `n` (the number of examples).
        metric: The axis label.

    Returns:
        A figure of 1000 x 560 pixels.
    """
    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, layout="constrained")
    axes = figure.subplots()
    difficulties = list(dict.fromkeys(str(row["difficulty"]) for row in table))
    models = list(dict.fromkeys(str(row["model"]) for row in table))
    width = 0.8 / max(1, len(models))
    for i, model in enumerate(models):
        rows = [row for row in table if row["model"] == model]
        shift = (i - (len(models) - 1) / 2) * width
        at = [difficulties.index(str(row["difficulty"])) + shift for row in rows]
        values = [float(row["accuracy"]) for row in rows]
        below = [max(0.0, v - float(row["low"])) for v, row in zip(values, rows, strict=True)]
        above = [max(0.0, float(row["high"]) - v) for v, row in zip(values, rows, strict=True)]
        colour = ("#b0b7bf", *COLOURS)[i % 7]
        axes.bar(at, values, width * 0.94, label=model, color=colour)
        axes.errorbar(at, values, [below, above], fmt="none", ecolor="#222222", capsize=5)
        for x, value, up in zip(at, values, above, strict=True):
            axes.text(x, value + up + 0.015, f"{value:.2f}", ha="center", fontsize=10)
    counts = {str(row["difficulty"]): row["n"] for row in table if row.get("n") is not None}
    labels = [f"{d}\n(n = {counts[d]})" if d in counts else d for d in difficulties]
    axes.set_xticks(range(len(difficulties)), labels)
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel(f"{metric} (0 to 1); whiskers: 95 % interval")
    axes.set_xlabel("difficulty")
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure
