"""Write a chart as one interactive HTML page that needs no network.

plotly's own writer (`plotly.io.to_html`) would put 4.8 MB of JavaScript into each page. A training
has several pages and writes them again after each attempt, so ours contain the same build of plotly
gzipped: 2.0 MB as text, which every current browser unpacks by itself.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from importlib import resources
from typing import Any

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

SYMBOLS = {
    "up": "triangle-up",
    "down": "triangle-down",
    "right": "triangle-right",
    "square": "square",
    "ring": "circle-open",
}
HATCH_OPACITY = 0.35  # plotly cannot hatch shapes
GAP = 0.05  # between two panels, as a share of the height
MAX_GAPS = 0.3  # of all gaps together
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body style="margin: 0">
<div id="figure" style="width: 100%; height: {height}px"></div>
<script id="plotly" type="application/gzip">{plotly}</script>
<script>
const figure = {figure};
const text = atob(document.getElementById("plotly").textContent);
const packed = Uint8Array.from(text, character => character.charCodeAt(0));
const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(stream).text().then(code => {{
  const script = document.createElement("script");
  script.textContent = code;
  document.head.appendChild(script);
  Plotly.newPlot("figure", figure.data, figure.layout, {{responsive: true, displaylogo: false}});
}});
</script>
</body>
</html>
"""


def as_page(chart: Chart, title: str) -> str:
    """Return the page of a chart, to be saved in UTF-8."""
    return plotly_page(as_plotly(chart), title, chart.size[1])


def plotly_page(plotly: Mapping[str, Any], title: str, height: int) -> str:
    """Return the page of a figure in plotly's JSON (`data` and `layout`), `height` pixels high."""
    # A "<" in a name must not close the script element of the figure.
    figure = json.dumps(plotly, ensure_ascii=False).replace("<", "\\u003c")
    return PAGE.format(title=escape(title), height=height, plotly=_packed_plotly(), figure=figure)


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    build = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(build, mtime=0)).decode("ascii")


def as_plotly(chart: Chart) -> dict[str, Any]:
    """Convert a chart to plotly's JSON: `data` and `layout`."""
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "hovermode": "closest",
        "shapes": [],
        "annotations": [],
        "legend": {"x": 1.01, "y": 1, "font": {"size": 12}},
        "margin": {"l": 70, "r": 10, "t": 30, "b": 50},
        "paper_bgcolor": "white",
        "xaxis": {
            "title": {"text": chart.label, "standoff": 8},
            "range": [0, chart.last],
            "anchor": _axis("y", len(chart.panels)),
            "zeroline": False,
            "showgrid": False,
        },
    }
    labels: set[str] = set()
    for number, (panel, domain) in enumerate(zip(chart.panels, _domains(chart), strict=True), 1):
        layout[_axis("yaxis", number)] = _y_axis(panel, domain)
        if panel.title:
            layout["annotations"].append(_title(panel.title, domain[1]))
        for item in panel.items:
            _add(item, _axis("y", number), data, layout, labels)
    rank = {label: index for index, label in enumerate(legend_order(chart), 1)}
    for trace in data:
        trace["legendrank"] = rank[trace["legendgroup"]]
    return {"data": data, "layout": layout}


def _axis(name: str, number: int) -> str:
    return name if number == 1 else f"{name}{number}"


def _domains(chart: Chart) -> list[tuple[float, float]]:
    """Return the lower and upper end of each panel from the top down, as shares of the height."""
    total, num_gaps = sum(panel.height for panel in chart.panels), len(chart.panels) - 1
    gap = min(GAP, MAX_GAPS / max(1, num_gaps))
    scale = (1 - gap * num_gaps) / total
    domains, top = [], 1.0
    for panel in chart.panels:
        low = max(0.0, top - panel.height * scale)
        domains.append((low, top))
        top = low - gap
    return domains


def _y_axis(panel: Panel, domain: tuple[float, float]) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "domain": list(domain),
        "title": {"text": panel.label.replace("\n", "<br>"), "standoff": 6},
        "automargin": True,  # makes room for long tick labels
        "zeroline": False,
        "gridcolor": panel.grid,
        "fixedrange": panel.high is not None,
    }
    if panel.high is not None:
        axis["range"] = [panel.low, panel.high]
    elif panel.low == 0:
        axis["rangemode"] = "tozero"
    if panel.ticks is not None:
        axis |= {"tickvals": list(panel.ticks), "showgrid": bool(panel.ticks)}
    return axis


def _title(text: str, top: float) -> dict[str, Any]:
    position = {"xref": "paper", "yref": "paper", "x": 0, "y": top}
    anchor = {"xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return {"text": f"<b>{escape(text)}</b>", **position, **anchor}


def _add(
    item: Item, axis: str, data: list[dict[str, Any]], layout: dict[str, Any], labels: set[str]
) -> None:
    """Add an item to the traces, shapes and annotations, and a new label to the legend."""
    if isinstance(item, VerticalLine):
        layout["shapes"].append(
            {"type": "line", "x0": item.step, "x1": item.step, "y0": 0, "y1": 1}
            | {"yref": f"{axis} domain", "line": {"color": item.colour, "width": 1}}
        )
    if isinstance(item, VerticalLine | Text):
        if item.text:
            layout["annotations"].append(_annotation(item, axis))
        return
    trace: dict[str, Any] = {"name": escape(item.label), "legendgroup": item.label}
    trace |= {"showlegend": item.label not in labels, "yaxis": axis}
    labels.add(item.label)
    if isinstance(item, Band):
        layout["shapes"].append(_band(item, axis))
        if trace["showlegend"]:  # an empty trace, as plotly leaves shapes out of the legend
            marker = {"symbol": "square", "size": 14, "color": item.colour}
            marker["opacity"] = HATCH_OPACITY if item.hatched else 1
            data.append({**trace, "x": [None], "y": [None], "mode": "markers", "marker": marker})
        return
    xs, ys = zip(*item.points, strict=True)
    data.append({**trace, "x": list(xs), "y": list(ys), **_style(item)})


def _annotation(item: VerticalLine | Text, axis: str) -> dict[str, Any]:
    note: dict[str, Any] = {"x": item.step, "showarrow": False, "text": escape(item.text)}
    if isinstance(item, VerticalLine):
        return note | {"yref": f"{axis} domain", "y": 1, "xanchor": "left", "yanchor": "top"}
    return note | {"yref": axis, "y": item.height}


def _band(band: Band, axis: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "rect", "yref": f"{axis} domain", "layer": "below"}
    shape |= {"x0": band.begin, "x1": band.end, "y0": 0, "y1": 1, "line": {"width": 0}}
    return shape | {"fillcolor": band.colour, "opacity": HATCH_OPACITY if band.hatched else 1}


def _style(item: Line | Marks | Area) -> dict[str, Any]:
    if isinstance(item, Area):
        line = {"width": 0.5, "color": item.colour, "shape": "hv" if item.step else "linear"}
        fill = {"stackgroup": "areas", "fillcolor": item.colour, "line": line}
        return {
            "mode": "lines",
            "hoveron": "points",
            "hovertemplate": _hover_template(item.label),
            **fill,
        }
    hover: dict[str, Any] = {"hovertemplate": _hover_template(item.label)}
    if item.notes:
        hover = {"hovertext": list(item.notes), "hoverinfo": "text"}
    if isinstance(item, Marks):
        marker = {"symbol": SYMBOLS[item.symbol], "color": item.colour, "size": 11}
        return {"mode": "markers", "marker": marker, "cliponaxis": False, **hover}
    line = {"color": item.colour, "width": item.width, "dash": "dot" if item.dotted else "solid"}
    return {"mode": "lines+markers" if item.dots else "lines", "line": line, **hover}


def _hover_template(label: str) -> str:
    return f"step %{{x}}: {escape(label)} %{{y:.4~g}}<extra></extra>"
