"""A chart as a matplotlib figure, for a PNG; without pyplot's state: any thread may draw."""

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pixelis.figures.chart import (
    Area,
    Band,
    Chart,
    Item,
    Line,
    Marks,
    Panel,
    Rule,
    Words,
    legend_order,
)

DPI = 100
SYMBOLS = {"up": "^", "down": "v", "right": ">", "square": "s", "ring": "o"}


def as_figure(chart: Chart) -> Figure:
    """Draw a chart of `chart.size` pixels; the legend is outside the lines."""
    width, height = chart.size
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    heights = [panel.height for panel in chart.panels]
    grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    handles: dict[str, Artist] = {}
    for axes, panel in zip(grid[:, 0], chart.panels, strict=True):
        for label, handle in _draw(axes, panel):
            handles.setdefault(label, handle)
        _frame(axes, panel)
    axes.set_xlim(0, chart.last)
    axes.set_xlabel(chart.label)
    labels = legend_order(chart)
    style: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "fontsize": 9}
    legend = figure.legend([handles[label] for label in labels], labels, **style)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _frame(axes: Axes, panel: Panel) -> None:
    """Axis, limits and title of a panel; a lane without ticks has no frame."""
    axes.set_ylim(panel.low, panel.high)
    axes.set_ylabel(panel.label)
    if panel.title:
        style: dict[str, Any] = {"loc": "left", "fontsize": 10, "fontweight": "bold"}
        axes.set_title(panel.title, parse_math=False, **style)
    if panel.ticks is not None:
        axes.set_yticks(panel.ticks)
    if panel.ticks == ():
        axes.spines[:].set_visible(False)
        axes.tick_params(bottom=False)
        return
    axes.grid(axis="y", color=panel.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    if panel.high is None:
        axes.yaxis.set_major_formatter("{x:,g}")


def _draw(axes: Axes, panel: Panel) -> list[tuple[str, Artist]]:
    """Draw the items of a panel; returns the legend's entries."""
    entries: list[tuple[str, Artist]] = []
    for item in panel.items:
        entries += _draw_item(axes, item)
    areas = [item for item in panel.items if isinstance(item, Area)]
    return entries + (_stack(axes, areas) if areas else [])


def _draw_item(axes: Axes, item: Item) -> list[tuple[str, Artist]]:
    if isinstance(item, Band):
        return [(item.label, _band(axes, item))]
    if isinstance(item, Line):
        style: dict[str, Any] = {
            "linestyle": ":" if item.dotted else "-",
            "marker": "." if item.dots else "",
        }
        xs, ys = zip(*item.points, strict=True)
        # What is bold is what counts: over the thin lines.
        order = 3 if item.width >= 3 else 2
        width = item.width
        (line,) = axes.plot(xs, ys, color=item.colour, linewidth=width, zorder=order, **style)
        return [(item.label, line)]
    if isinstance(item, Marks):
        return [(item.label, _marks(axes, item))]
    if isinstance(item, Rule):
        axes.axvline(item.step, color=item.colour, linewidth=0.9, alpha=0.6, zorder=1)
        if item.words:
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "parse_math": False}
            axes.text(item.step, 0.96, f" {item.words}", fontsize=9, **place)
    if isinstance(item, Words):
        middle: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False}
        axes.text(item.step, item.height, item.words, fontsize=10, **middle)
    return []


def _band(axes: Axes, band: Band) -> Artist:
    if band.hatched:
        style: dict[str, Any] = {"facecolor": "none", "edgecolor": band.colour, "hatch": "///"}
        axes.axvspan(band.begin, band.end, zorder=0.5, linewidth=0, **style)
        return Patch(linewidth=0, **style)
    axes.axvspan(band.begin, band.end, facecolor=band.colour, edgecolor="white", zorder=0)
    return Patch(facecolor=band.colour, edgecolor="#9fb3c4")


def _marks(axes: Axes, marks: Marks) -> Artist:
    hollow = {"markerfacecolor": "white", "markeredgewidth": 1.5, "markersize": 6}
    style: dict[str, Any] = hollow if marks.symbol == "ring" else {"markersize": 9}
    xs, ys = zip(*marks.points, strict=True)
    marker = SYMBOLS[marks.symbol]
    (drawn,) = axes.plot(
        xs,
        ys,
        color=marks.colour,
        marker=marker,
        linestyle="none",
        clip_on=False,
        zorder=4,
        **style,
    )
    return drawn


def _stack(axes: Axes, areas: Sequence[Area]) -> list[tuple[str, Artist]]:
    """Layers on top of each other."""
    drawn = axes.stackplot(
        [step for step, _ in areas[0].points],
        [[value for _, value in area.points] for area in areas],
        colors=[area.colour for area in areas],
        alpha=0.8,
        step="post" if areas[0].held else None,
    )
    return list(zip((area.label for area in areas), drawn, strict=True))
