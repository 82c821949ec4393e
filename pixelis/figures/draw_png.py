"""Draw a chart with matplotlib, for a PNG; without pyplot, so that any thread can draw."""

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
    Text,
    VerticalLine,
    legend_order,
)

DPI = 100
SYMBOLS = {"up": "^", "down": "v", "right": ">", "square": "s", "ring": "o"}


def as_figure(chart: Chart) -> Figure:
    """Draw a chart of `chart.size` pixels, with the legend outside of the plots."""
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
    """Set the axes, limits and title of a panel; a lane without ticks has no frame."""
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
    """Draw the items of a panel and return the entries of the legend."""
    entries: list[tuple[str, Artist]] = []
    for item in panel.items:
        entries += _draw_item(axes, item)
    areas = [item for item in panel.items if isinstance(item, Area)]
    return entries + (_stack(axes, areas) if areas else [])


def _draw_item(axes: Axes, item: Item) -> list[tuple[str, Artist]]:
    if isinstance(item, Band):
        return [(item.label, _band(axes, item))]
    style: dict[str, Any]
    if isinstance(item, Line):
        style = {
            "linestyle": ":" if item.dotted else "-",
            "marker": "." if item.dots else "",
        }
        xs, ys = zip(*item.points, strict=True)
        style |= {"linewidth": item.width, "zorder": 3 if item.width >= 3 else 2}  # bold on top
        (line,) = axes.plot(xs, ys, color=item.colour, **style)
        return [(item.label, line)]
    if isinstance(item, Marks):
        return [(item.label, _marks(axes, item))]
    if isinstance(item, VerticalLine):
        axes.axvline(item.step, color=item.colour, linewidth=0.9, alpha=0.6, zorder=1)
        if item.text:
            style = {"transform": axes.get_xaxis_transform(), "parse_math": False}
            axes.text(item.step, 0.96, f" {item.text}", fontsize=9, **style)
    if isinstance(item, Text):
        style = {"ha": "center", "va": "center", "parse_math": False}
        axes.text(item.step, item.height, item.text, fontsize=10, **style)
    return []


def _band(axes: Axes, band: Band) -> Artist:
    if band.hatched:
        style: dict[str, Any] = {"facecolor": "none", "edgecolor": band.colour, "hatch": "///"}
        axes.axvspan(band.begin, band.end, zorder=0.5, linewidth=0, **style)
        return Patch(linewidth=0, **style)
    axes.axvspan(band.begin, band.end, facecolor=band.colour, edgecolor="white", zorder=0)
    return Patch(facecolor=band.colour, edgecolor="#9fb3c4")


def _marks(axes: Axes, marks: Marks) -> Artist:
    style: dict[str, Any] = {"marker": SYMBOLS[marks.symbol], "color": marks.colour}
    style |= {"markersize": 9, "linestyle": "none", "clip_on": False, "zorder": 4}
    if marks.symbol == "ring":
        style |= {"markerfacecolor": "white", "markeredgewidth": 1.5, "markersize": 6}
    xs, ys = zip(*marks.points, strict=True)
    (drawn,) = axes.plot(xs, ys, **style)
    return drawn


def _stack(axes: Axes, areas: Sequence[Area]) -> list[tuple[str, Artist]]:
    """Draw stacked areas and return the entries of the legend."""
    drawn = axes.stackplot(
        [step for step, _ in areas[0].points],
        [[value for _, value in area.points] for area in areas],
        colors=[area.colour for area in areas],
        alpha=0.8,
        step="post" if areas[0].step else None,
    )
    return list(zip((area.label for area in areas), drawn, strict=True))
