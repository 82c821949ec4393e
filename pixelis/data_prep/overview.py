"""Two pictures of a data set: how its scores are spread, and what each category looks like."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pixelis.data.example import DIFFICULTIES, SAMPLE_TYPES
from pixelis.data_prep.gallery import CATEGORY_COLOURS, examples_figure

__all__ = ["difficulty_figure", "examples_figure"]

WIDTH = 12.0  # inches at 100 dots: 1200 pixels
BINS = 40
# Panels side by side, for the tasks and for the sample types.
PANELS_IN_ROW = 5
# Of more tasks, the largest are shown.
MAX_PANELS = 15
TITLE_LENGTH = 28


def difficulty_figure(meta: Sequence[Mapping[str, Any]], thresholds: Mapping[str, Any]) -> Figure:
    """Histograms of the scores, a panel for each task and each sample type, by category.

    Args:
        meta: of each example task, sample_type, difficulty and score.
        thresholds: as in the summary: `values` holds two cuts by task, or for `all` tasks.

    Returns:
        A figure 1200 pixels wide.
    """
    panels = [
        (key, label, _names([str(row[key]) for row in meta]))
        for key, label in (("task", "task"), ("sample_type", "sample type"))
    ]
    rows = [
        (key, label, names[start : start + PANELS_IN_ROW])
        for key, label, names in panels
        for start in range(0, len(names), PANELS_IN_ROW)
    ]
    figure = Figure(figsize=(WIDTH, 0.9 + 2.4 * max(1, len(rows))), dpi=100, layout="constrained")
    columns = max([1, *(len(names) for _, _, names in rows)])
    grid = figure.subplots(max(1, len(rows)), columns, sharex=True, squeeze=False)
    for each in grid.flat:
        each.set_visible(False)
    low, high = _range([float(row["score"]) for row in meta])
    edges = np.linspace(low, high, BINS + 1)
    values = thresholds.get("values") or {}
    for line, (key, label, names) in zip(grid, rows, strict=False):
        for axes, name in zip(line, names, strict=False):
            mine = [row for row in meta if str(row[key]) == name]
            _histogram(axes, mine, edges)
            title = textwrap.shorten(name.replace("_", " "), TITLE_LENGTH, placeholder="...")
            axes.set_title(f"{title}\nn = {len(mine):,}", fontsize=9)
            shared = values.get("all", ())
            for cut in values.get(name, shared) if key == "task" else shared:
                if cut is not None:
                    axes.axvline(cut, color="#222222", linestyle=":", linewidth=1.4)
        line[0].set_ylabel(f"examples, by {label}", fontsize=9)
    for column in grid.T:
        shown = [axes for axes in column if axes.get_visible()]
        if shown:
            shown[-1].tick_params(labelbottom=True)
    figure.supxlabel("difficulty score (0 easy to 1 hard)", fontsize=10)
    handles: list[Any] = [Patch(color=c, label=name) for name, c in CATEGORY_COLOURS.items()]
    handles.append(Line2D([], [], color="#222222", linestyle=":", label="threshold"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _names(kinds: Sequence[str]) -> list[str]:
    """The largest kinds, in the project's order of sample types, then by name."""
    largest = [name for name, _ in Counter(sorted(kinds)).most_common(MAX_PANELS)]
    order = {name: place for place, name in enumerate(SAMPLE_TYPES)}
    return sorted(largest, key=lambda name: (order.get(name, len(order)), name))


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """What the scores span, widened to tenths: most of [0, 1] is often empty."""
    if not scores:
        return 0.0, 1.0
    low, high = np.floor(min(scores) * 10) / 10, np.ceil(max(scores) * 10) / 10
    return float(low), float(high if high > low else low + 0.1)


def _histogram(axes: Axes, rows: Sequence[Mapping[str, Any]], edges: Any) -> None:
    axes.set_visible(True)
    layers = [[float(r["score"]) for r in rows if r["difficulty"] == d] for d in DIFFICULTIES]
    # One outline a category: a patch for each bar takes a second over all panels.
    below = np.zeros(len(edges) - 1)
    for layer, colour in zip(layers, CATEGORY_COLOURS.values(), strict=True):
        top = below + np.histogram(layer, edges)[0]
        axes.stairs(top, edges, baseline=below, fill=True, color=colour)
        below = top
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
