"""A figure in plotly's JSON, from which both the interactive page and the PNG are drawn.

A chart over optimiser steps is a column of panels; the functions below return a panel's items, each
with one or more of plotly's parts: `trace`, `shape` and `annotation`. A label is the entry in the
legend, which shows every label once.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

Point = tuple[float, float]
Item = dict[str, dict[str, Any]]

SIZE = (1000, 560)  # width and height in pixels
# The colours of Okabe and Ito, which colour-blind readers can distinguish; from easy to hard.
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
BANDS = ("#eef3f8", "#dbe6f0", "#c8d8e6", "#b4cadc", "#a1bcd2")
DARK = "#111111"
GREY = "#555555"
GAP = 0.05  # between two panels, as a share of the height
MAX_GAPS = 0.3  # of all gaps together
LETTER, LINE = 9, 20  # width and height of a title's letters, in pixels


@dataclass(frozen=True)
class Chart:
    """A figure: plotly's `data` and `layout`, and its width and height in pixels."""

    data: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    size: tuple[int, int] = SIZE


@dataclass(frozen=True)
class Panel:
    """One of the stacked plots; `low` and `high` limit its y axis, None: by its values."""

    items: Sequence[Item]
    label: str = ""
    height: float = 4.0
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] | None = None
    title: str = ""


def titled(chart: Chart, text: str) -> Chart:
    """Return a chart with a title, in as many lines as its width needs."""
    lines = textwrap.wrap(text, chart.size[0] // LETTER)
    place = {"x": 0.01, "xanchor": "left", "y": 0.99, "yanchor": "top", "yref": "container"}
    title = {"text": "<br>".join(map(escape, lines)), "font": {"size": 14}, **place}
    margin = chart.layout["margin"]
    margin = {**margin, "t": margin["t"] + LINE * len(lines)}
    return replace(chart, layout={**chart.layout, "title": title, "margin": margin})


def colour_of(index: int) -> str:
    """Return the colour of the difficulty at a position in their order."""
    return COLOURS[index % len(COLOURS)]


def line(
    label: str,
    points: Sequence[Point],
    colour: str,
    *,
    width: float = 1.5,
    dotted: bool = False,
    dots: bool = False,
    notes: Sequence[str] = (),
) -> Item:
    """Return a line through points; `notes` are the hover texts, one for each point."""
    style = {"color": colour, "width": width, "dash": "dot" if dotted else "solid"}
    mode = "lines+markers" if dots else "lines"
    return _trace(label, points, notes, mode=mode, line=style)


def marks(
    label: str, points: Sequence[Point], colour: str, symbol: str, notes: Sequence[str] = ()
) -> Item:
    """Return marks of one kind; `symbol` is plotly's name of it."""
    marker = {"symbol": symbol, "color": colour, "size": 11}
    return _trace(label, points, notes, mode="markers", marker=marker, cliponaxis=False)


def area(label: str, points: Sequence[Point], colour: str, *, step: bool = False) -> Item:
    """Return a layer on the areas before it; with `step`, a value lasts until the next one."""
    style = {"width": 0.5, "color": colour, "shape": "hv" if step else "linear"}
    fill = {"stackgroup": "areas", "fillcolor": colour, "hoveron": "points"}
    return _trace(label, points, (), mode="lines", line=style, **fill)


def _trace(label: str, points: Sequence[Point], notes: Sequence[str], **style: Any) -> Item:
    template = f"step %{{x}}: {escape(label)} %{{y:.4~g}}<extra></extra>"
    hover: dict[str, Any] = {"hovertemplate": template}
    if notes:
        hover = {"hovertext": list(notes), "hoverinfo": "text"}
    values = {"x": [x for x, _ in points], "y": [y for _, y in points]}
    return {"trace": {"name": escape(label), **values, **style, **hover}}


def band(
    label: str, begin: float, end: float, colour: str, *, opacity: float = 1.0, text: str = ""
) -> Item:
    """Return a coloured span of steps with a text in it."""
    shape = {"type": "rect", "x0": begin, "x1": end, "line": {"width": 0}, "layer": "below"}
    marker = {"symbol": "square", "size": 14, "color": colour, "opacity": opacity}
    item: Item = {
        "shape": {**shape, "fillcolor": colour, "opacity": opacity},
        # An empty trace, because plotly leaves shapes out of the legend.
        "trace": {"name": escape(label), "x": [None], "y": [None], "mode": "markers"}
        | {"marker": marker},
    }
    if text:
        item["annotation"] = {"x": (begin + end) / 2, "y": 0.74, "text": escape(text)}
    return item


def vertical_line(step: float, colour: str, text: str = "") -> Item:
    """Return a thin vertical line, with a text at its upper end."""
    line = {"color": colour, "width": 1}
    item: Item = {"shape": {"type": "line", "x0": step, "x1": step, "line": line}}
    if text:
        anchor = {"xanchor": "left", "yanchor": "top"}
        item["annotation"] = {"x": step, "y": 1, "text": escape(text), **anchor}
    return item


def stack_panels(
    panels: Sequence[Panel],
    last: float,
    *,
    size: tuple[int, int] = SIZE,
    label: str = "optimiser step",
) -> Chart:
    """Return the chart of panels, from the top down, on one axis of steps that ends at `last`."""
    num_gaps = len(panels) - 1
    gap = min(GAP, MAX_GAPS / max(1, num_gaps))
    scale = (1 - gap * num_gaps) / sum(panel.height for panel in panels)
    data: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    labels: set[str] = set()
    top = 1.0
    for number, panel in enumerate(panels, 1):
        suffix = "" if number == 1 else str(number)
        bottom = max(0.0, top - panel.height * scale)
        axes[f"yaxis{suffix}"] = _y_axis(panel, [bottom, top])
        top = bottom - gap
        domain = {"yref": f"y{suffix} domain"}
        if panel.title:
            title = {"xref": "paper", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
            texts.append({"text": f"<b>{escape(panel.title)}</b>", **title, **domain})
        for item in panel.items:
            if shape := item.get("shape"):
                shapes.append({**shape, "y0": 0, "y1": 1, **domain})
            if text := item.get("annotation"):
                texts.append({**text, **domain})
            trace = item.get("trace")
            if trace is None or ("shape" in item and trace["name"] in labels):
                continue
            legend = {"legendgroup": trace["name"], "showlegend": trace["name"] not in labels}
            data.append({**trace, **legend, "yaxis": f"y{suffix}"})
            labels.add(trace["name"])
    axis = {"range": [0, last], "anchor": f"y{suffix}", "zeroline": False, "showgrid": False}
    layout = {
        "hovermode": "closest",
        "shapes": shapes,
        "annotations": [{"showarrow": False, **text} for text in texts],
        "legend": {"x": 1.01, "y": 1, "font": {"size": 12}},
        "margin": {"l": 70, "r": 10, "t": 30, "b": 50},
        "paper_bgcolor": "white",
        "xaxis": {"title": {"text": label, "standoff": 8}, **axis},
        **axes,
    }
    return Chart(data, layout, size)


def _y_axis(panel: Panel, domain: Sequence[float]) -> dict[str, Any]:
    on_bands = any(item.get("shape", {}).get("type") == "rect" for item in panel.items)
    axis: dict[str, Any] = {
        "domain": domain,
        "title": {"text": panel.label, "standoff": 6},
        "automargin": True,  # makes room for long tick labels
        "zeroline": False,
        "gridcolor": "#ffffff" if on_bands else "#e6e6e6",
        "fixedrange": panel.high is not None,
    }
    if panel.high is not None:
        axis["range"] = [panel.low, panel.high]
    elif panel.low == 0:
        axis["rangemode"] = "tozero"
    if panel.ticks is not None:
        axis |= {"tickvals": list(panel.ticks), "showgrid": bool(panel.ticks)}
    return axis
