"""Write a chart as one interactive HTML page that needs no network.

plotly's own writer (`plotly.io.to_html`) would put 4.8 MB of JavaScript into each page. A training
has several pages and writes them again after each attempt, so ours contain the same build of plotly
gzipped: 2.0 MB as text, which every current browser unpacks by itself.
"""

import base64
import gzip
import json
from functools import lru_cache
from html import escape
from importlib import resources

from pixelis.figures.chart import Chart

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
    figure = json.dumps({"data": chart.data, "layout": chart.layout}, ensure_ascii=False)
    # A "<" in a name must not close the script element of the figure.
    figure = figure.replace("<", "\\u003c")
    height = chart.size[1]
    return PAGE.format(title=escape(title), height=height, plotly=_packed_plotly(), figure=figure)


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    build = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(build, mtime=0)).decode("ascii")
