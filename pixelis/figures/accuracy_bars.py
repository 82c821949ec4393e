"""Base and adapter side by side by difficulty, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pixelis.figures.bars import Bars, Series, bars_figure
from pixelis.figures.chart import COLOURS

BASE = "#b0b7bf"


def accuracy_bars(
    table: Sequence[Mapping[str, Any]],
    *,
    metric: str = "answer accuracy",
    group_label: str = "difficulty",
) -> Bars:
    """Base and adapter side by side by difficulty, with 95 % intervals.

    Args:
        table: Rows with `difficulty`, `model` (such as `base` and `adapter`), `accuracy`, `low` and
            `high` (the interval's ends), and optionally `n` (the number of examples).
        metric: The axis label.
        group_label: What the groups are.
    """
    groups = list(dict.fromkeys(str(row["difficulty"]) for row in table))
    models = list(dict.fromkeys(str(row["model"]) for row in table))
    counts = {str(row["difficulty"]): row["n"] for row in table if row.get("n") is not None}
    series = []
    for i, model in enumerate(models):
        rows = {str(row["difficulty"]): row for row in table if row["model"] == model}
        found = [rows[group] for group in groups]
        series.append(
            Series(
                model,
                [float(row["accuracy"]) for row in found],
                (BASE, *COLOURS)[i % (len(COLOURS) + 1)],
                [float(row["low"]) for row in found],
                [float(row["high"]) for row in found],
                [
                    f"{model}, {group}: {row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                    for group, row in zip(groups, found, strict=True)
                ],
            )
        )
    return Bars(
        groups=[f"{g}\n(n = {counts[g]})" if g in counts else g for g in groups],
        series=series,
        label=f"{metric} (0 to 1); whiskers: 95 % interval",
        group_label=group_label,
    )


def accuracy(table: Sequence[Mapping[str, Any]], *, metric: str = "answer accuracy") -> Figure:
    """`accuracy_bars` as a figure of 1000 x 560 pixels."""
    return bars_figure(accuracy_bars(table, metric=metric))
