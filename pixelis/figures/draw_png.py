"""Draw a chart with matplotlib, for a PNG; without pyplot, so that any thread can draw.

It draws the parts of plotly's JSON that this folder's charts use: lines, marks, stacked areas, bars
and heatmaps, with their shapes and annotations.
"""

import math
import re
from collections.abc import Sequence
from html import unescape
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from pixelis.figures.chart import Chart
from pixelis.figures.fonts import fit_fonts

DPI = 100
SYMBOLS = {"triangle-up": "^", "triangle-down": "v", "triangle-right": ">", "square": "s"}
MAX_HORIZONTAL = 6  # the names of more bars are slanted to fit

Part = dict[str, Any]


def as_figure(chart: Chart) -> Figure:
    """Draw a chart of `chart.size` pixels, with the legend outside of the plots."""
    width, height = chart.size
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    layout = chart.layout
    handles: dict[str, Artist] = {}
    for name, axes in _subplots(figure, layout).items():
        traces = [trace for trace in chart.data if trace.get("yaxis", "y") == name]
        for shape in layout.get("shapes", ()):
            if shape["yref"].split()[0] == name:
                _draw_shape(axes, shape)
        for label, handle in _draw_traces(axes, traces, layout):
            handles.setdefault(label, handle)
        for note in layout.get("annotations", ()):
            if note["yref"].split()[0] == name:
                _write(axes, note)
        _set_axes(axes, layout, name)
    if "title" in layout:
        title = _plain(layout["title"]["text"])
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    if handles:
        style: Part = {"loc": "outside right upper", "frameon": False, "fontsize": 9}
        legend = figure.legend(list(handles.values()), list(handles), **style)
        for text in legend.get_texts():
            text.set_parse_math(False)
    fit_fonts(figure)
    return figure


def _plain(text: str) -> str:
    """Return plotly's HTML as plain text."""
    return unescape(re.sub(r"</?b>", "", text.replace("<br>", "\n")))


def _subplots(figure: Figure, layout: Part) -> dict[str, Axes]:
    """Return the axes by the name of their y axis in traces: y, y2, ..."""
    names = [key.replace("axis", "") for key in layout if key.startswith("yaxis")]
    if "grid" in layout:
        rows, columns = layout["grid"]["rows"], layout["grid"]["columns"]
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(names) :]:
            axes.set_axis_off()
    else:
        domains = [layout[name.replace("y", "yaxis")].get("domain", (0, 1)) for name in names]
        heights = [high - low for low, high in domains]
        grid = figure.subplots(len(names), 1, sharex=True, height_ratios=heights, squeeze=False)
    return dict(zip(names, grid.flat, strict=False))


def _set_axes(axes: Axes, layout: Part, name: str) -> None:
    """Set the limits, ticks and labels of one plot; without ticks it has no frame."""
    x_axis = layout[name.replace("y", "xaxis")] if "grid" in layout else layout["xaxis"]
    y_axis = layout[name.replace("y", "yaxis")]
    title = _plain(x_axis["title"]["text"])
    if "grid" in layout:
        axes.set_title(title, fontsize=10, parse_math=False)
    elif axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
        axes.set_xlabel(title, parse_math=False)
    axes.set_ylabel(_plain(y_axis["title"]["text"]), parse_math=False)
    if "range" in x_axis:
        axes.set_xlim(*x_axis["range"])
    if "range" in y_axis:
        axes.set_ylim(*y_axis["range"])
    elif y_axis.get("rangemode") == "tozero":
        axes.set_ylim(bottom=0)
    if "tickvals" in y_axis:
        axes.set_yticks(y_axis["tickvals"])
    if y_axis.get("tickvals") == []:
        axes.spines[:].set_visible(False)
        axes.tick_params(bottom=False)
    elif "grid" not in layout:
        axes.grid(axis="y", color=y_axis["gridcolor"], linewidth=0.8)
        axes.set_axisbelow(True)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)


def _draw_shape(axes: Axes, shape: Part) -> None:
    if shape["type"] == "line":
        axes.axvline(shape["x0"], color=shape["line"]["color"], linewidth=0.9, alpha=0.6, zorder=1)
        return
    style: Part = {"facecolor": shape["fillcolor"], "alpha": shape["opacity"], "linewidth": 0}
    axes.axvspan(shape["x0"], shape["x1"], zorder=0, **style)


def _write(axes: Axes, note: Part) -> None:
    transform = blended_transform_factory(
        axes.transAxes if note.get("xref") == "paper" else axes.transData, axes.transAxes
    )
    bold = {"fontweight": "bold"} if note["text"].startswith("<b>") else {}
    style: Part = {"ha": note.get("xanchor", "center"), "va": note.get("yanchor", "center"), **bold}
    text = _plain(note["text"])
    axes.text(note["x"], note["y"], text, transform=transform, parse_math=False, **style)


def _draw_traces(axes: Axes, traces: Sequence[Part], layout: Part) -> list[tuple[str, Artist]]:
    """Draw the traces of one plot and return the entries of the legend."""
    bars = [trace for trace in traces if trace.get("type") == "bar"]
    areas = [trace for trace in traces if "stackgroup" in trace]
    entries = _bars(axes, bars, is_stacked=layout.get("barmode") == "stack") if bars else []
    if areas:
        shape = areas[0]["line"]["shape"]
        layers = axes.stackplot(
            areas[0]["x"],
            [trace["y"] for trace in areas],
            colors=[trace["fillcolor"] for trace in areas],
            alpha=0.8,
            step="post" if shape == "hv" else None,
        )
        entries += [(_plain(t["name"]), layer) for t, layer in zip(areas, layers, strict=True)]
    for trace in traces:
        if trace.get("type") == "heatmap":
            _heatmap(axes, trace)
        elif trace not in bars and trace not in areas:
            (line,) = axes.plot(trace["x"], trace["y"], **_style(trace))
            entries.append((_plain(trace["name"]), line))
    return entries


def _style(trace: Part) -> Part:
    """Return matplotlib's style of a line or of marks."""
    if trace["mode"] == "markers":
        marker = trace["marker"]
        style = {"marker": SYMBOLS.get(marker["symbol"], "o"), "color": marker["color"]}
        style |= {"markersize": 0.8 * marker["size"], "linestyle": "none", "zorder": 4}
        if marker["symbol"].endswith("-open"):
            style |= {"markerfacecolor": "white", "markeredgewidth": 1.5}
        return style | {"alpha": marker.get("opacity", 1), "clip_on": False}
    line = trace["line"]
    return {
        "color": line["color"],
        "linewidth": line["width"],
        "linestyle": ":" if line["dash"] == "dot" else "-",
        "marker": "." if "markers" in trace["mode"] else "",
        "zorder": 3 if line["width"] >= 3 else 2,  # bold on top
    }


def _bars(axes: Axes, traces: Sequence[Part], *, is_stacked: bool) -> list[tuple[str, Artist]]:
    """Draw bars side by side, with their intervals and values, or on each other."""
    groups = [_plain(group) for group in traces[0]["x"]]
    thickness = 0.7 if is_stacked else 0.8 / len(traces)
    bottom = [0.0] * len(groups)
    entries: list[tuple[str, Artist]] = []
    for i, trace in enumerate(traces):
        shift = 0.0 if is_stacked else (i - (len(traces) - 1) / 2) * thickness
        at, values = [index + shift for index in range(len(groups))], trace["y"]
        colour = trace["marker"]["color"]
        drawn = axes.bar(at, values, thickness * 0.94, bottom=bottom, color=colour)
        entries.append((_plain(trace["name"]), drawn.patches[0]))
        if is_stacked:
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
            continue
        # Not a number: no whiskers are drawn.
        above = [math.nan if up is None else up for up in trace["error_y"]["array"]]
        below = [math.nan if down is None else down for down in trace["error_y"]["arrayminus"]]
        axes.errorbar(at, values, [below, above], fmt="none", ecolor="#222222", capsize=5)
        for x, value, up in zip(at, values, trace["error_y"]["array"], strict=True):
            axes.text(x, value + (up or 0) + 0.015, f"{value:.2f}", ha="center", fontsize=10)
    slanted: Part = {"rotation": 25, "ha": "right"} if len(groups) > MAX_HORIZONTAL else {}
    axes.set_xticks(range(len(groups)), groups, **slanted)
    axes.spines[["top", "right"]].set_visible(False)
    return entries


def _heatmap(axes: Axes, trace: Part) -> None:
    """Draw a matrix with its numbers; darker cells have larger values of `z`."""
    axes.imshow(trace["z"], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(trace["text"]):
        for j, text in enumerate(row):
            colour = "white" if trace["z"][i][j] > 0.6 else "black"
            axes.text(j, i, text, color=colour, ha="center", va="center", fontsize=8)
    names, others = ([_plain(name) for name in trace[axis]] for axis in ("x", "y"))
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(others)), others)
    axes.tick_params(labelsize=7.5)
