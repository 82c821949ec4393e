"""Bars beside or on top of each other by group, as a PNG and as an interactive page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelis.figures.chart import SIZE
from pixelis.figures.draw_html import page_of
from pixelis.figures.draw_png import DPI

MANY = 6  # more groups' names do not fit beside each other
ROOM = 1.1  # upper end of an axis of shares: numbers stand above the bars


@dataclass(frozen=True)
class Series:
    """The bars of one colour: a height for each group, its interval, and what is said of it."""

    label: str
    values: Sequence[float]
    colour: str
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Bars:
    """Groups with a bar of every series; stacked, they lie on top of each other."""

    groups: Sequence[str]
    series: Sequence[Series]
    label: str
    group_label: str = ""
    stacked: bool = False
    size: tuple[int, int] = SIZE


def bars_figure(bars: Bars) -> Figure:
    """A matplotlib figure of `bars.size` pixels."""
    width, height = bars.size
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    thickness = 0.7 if bars.stacked else 0.8 / max(1, len(bars.series))
    bottom = [0.0] * len(bars.groups)
    for i, series in enumerate(bars.series):
        shift = 0.0 if bars.stacked else (i - (len(bars.series) - 1) / 2) * thickness
        at = [place + shift for place in range(len(bars.groups))]
        style: dict[str, Any] = {"label": series.label, "color": series.colour}
        axes.bar(at, series.values, thickness * 0.94, bottom=bottom, **style)
        if bars.stacked:
            bottom = [low + value for low, value in zip(bottom, series.values, strict=True)]
        else:
            _whiskers(axes, at, series)
    axes.set_xticks(range(len(bars.groups)), bars.groups)
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
        if len(bars.groups) > MANY:
            text.set(rotation=25, ha="right")
    axes.set_ylim(0, 1 if bars.stacked else ROOM)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel(bars.label)
    axes.set_xlabel(bars.group_label)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _whiskers(axes: Axes, at: Sequence[float], series: Series) -> None:
    low, high = series.low or series.values, series.high or series.values
    below = [max(0.0, v - end) for v, end in zip(series.values, low, strict=True)]
    above = [max(0.0, end - v) for v, end in zip(series.values, high, strict=True)]
    if series.low:
        axes.errorbar(at, series.values, [below, above], fmt="none", ecolor="#222222", capsize=5)
    for x, value, up in zip(at, series.values, above, strict=True):
        axes.text(x, value + up + 0.015, f"{value:.2f}", ha="center", fontsize=10)


def bars_page(bars: Bars, title: str) -> str:
    """The same as an HTML page that says more under the mouse."""
    data = []
    for series in bars.series:
        groups = [escape(group).replace("\n", "<br>") for group in bars.groups]
        trace: dict[str, Any] = {
            "type": "bar",
            "name": escape(series.label),
            "x": groups,
            "y": list(series.values),
            "marker": {"color": series.colour},
        }
        if series.notes:
            trace |= {"hovertext": [escape(note) for note in series.notes], "hoverinfo": "text"}
        if series.low and series.high:
            ends = zip(series.values, series.low, series.high, strict=True)
            pairs = [(max(0.0, high - v), max(0.0, v - low)) for v, low, high in ends]
            up, down = zip(*pairs, strict=True)
            whisker = {"type": "data", "symmetric": False, "color": "#222222"}
            trace["error_y"] = {**whisker, "array": list(up), "arrayminus": list(down)}
        data.append(trace)
    layout = {
        "barmode": "stack" if bars.stacked else "group",
        "xaxis": {
            "title": {"text": escape(bars.group_label), "standoff": 12},
            "type": "category",
            "automargin": True,  # long names stand at a slant
        },
        "yaxis": {"title": {"text": escape(bars.label)}, "range": [0, 1 if bars.stacked else ROOM]},
        "legend": {"traceorder": "normal"},
        "margin": {"l": 70, "r": 10, "t": 30, "b": 70},
        "paper_bgcolor": "white",
    }
    return page_of({"data": data, "layout": layout}, title, bars.size[1])
