"""A chart drawn by matplotlib and as an interactive page: equal, and without a network."""

import base64
import gzip
import io
import json
import re
from html import escape, unescape

import plotly.graph_objects
import pytest

from pixelis.figures import (
    as_figure,
    as_page,
    compare_timelines,
    layer_ranks,
    layer_spectra,
    loss_by_difficulty,
    samples_drawn,
    timeline,
    titled,
)
from pixelis.figures.chart import Panel, band, line, stack_panels

HOSTILE = "</script><b>$x_1$ & $y"
RANKS = [
    {"layer": f"model.{part}.{number}.{kind}", "rank": rank, "explained": explained}
    for part, number, kind, rank, explained in (
        ("language_model.layers", 0, "mlp.up_proj", 2, [0.5, 0.25]),
        ("language_model.layers", 1, "mlp.up_proj", 1, [0.75, 0.125]),
        ("visual.blocks", 0, "attn.qkv", 0, []),
    )
]


def drawn_labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture
def charts(make_history, drifting):
    whole = make_history(min_performance=0.6, rollback_threshold=-0.15)
    histories = {"a": whole, "b": drifting}
    drawn = [
        make(each)
        for make in (timeline, samples_drawn, loss_by_difficulty)
        for each in histories.values()
    ]
    return [*drawn, compare_timelines(histories), layer_ranks(RANKS), layer_spectra(RANKS)]


def test_both_drawings_have_the_same_legend_and_numbers(charts):
    for chart in charts:
        built = plotly.graph_objects.Figure(list(chart.data), chart.layout)
        assert json.loads(built.to_json())["data"]
        figure = as_figure(chart)
        shown = [unescape(trace["name"]) for trace in chart.data if trace["showlegend"]]
        assert sorted(shown) == sorted(drawn_labels(figure)) and len(shown) == len(set(shown))
        lines = [
            (list(each.get_xdata()), list(each.get_ydata()))
            for axes in figure.axes
            for each in axes.lines
        ]
        for trace in chart.data:
            if "stackgroup" not in trace and trace["x"] != [None]:
                assert (trace["x"], trace["y"]) in lines


def test_the_png_has_its_size_its_labels_and_the_legend_outside(make_history):
    figure = as_figure(timeline(make_history(min_performance=0.6, rollback_threshold=-0.15)))
    content = io.BytesIO()
    figure.savefig(content, format="png")
    header = content.getvalue()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (1000, 560)
    assert drawn_labels(figure) == [
        *("stage easy", "advance", "rollback", "simple", "hard", "current mix"),
        *("to beat: before -0.15", "next mix at a decision", "minimum to advance (0.6)"),
        "training loss",
    ]
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= 1000
    assert all(axes.get_window_extent().x1 < legend.x0 for axes in figure.axes)
    lane, lines, loss = figure.axes
    assert [text.get_text() for text in lane.texts] == ["easy"]
    assert lines.get_ylabel() == "performance (0 to 1)"
    assert loss.get_ylabel() == "training loss\n(nats per token)"
    assert (loss.get_xlabel(), loss.get_xlim()) == ("optimiser step", (0, 100))
    (bold,) = [each for each in lines.lines if each.get_linewidth() == 3.0]
    others = [each for each in lines.lines if each is not bold and each.get_marker() in ("", ".")]
    assert bold.get_zorder() > max(each.get_zorder() for each in others)


def test_a_title_takes_the_lines_that_it_needs(make_history):
    chart = timeline(make_history())
    short, long = titled(chart, f"timeline: {HOSTILE}"), titled(chart, "timeline: " + "word " * 50)
    (line,) = as_figure(short).texts
    assert line.get_text() == f"timeline: {HOSTILE}"
    assert short.layout["title"]["text"] == f"timeline: {escape(HOSTILE)}"
    assert as_figure(long).texts[0].get_text().count("\n") == 2
    assert long.layout["margin"]["t"] - short.layout["margin"]["t"] == 2 * 20
    assert short.size == chart.size and "title" not in chart.layout
    plotly.graph_objects.Figure(list(short.data), short.layout)  # refuses what plotly lacks
    figure = as_figure(long)
    figure.draw_without_rendering()
    title = figure.texts[0].get_window_extent()
    assert title.x1 <= 1000 and figure.axes[0].get_window_extent().y1 < title.y0


def test_areas_lie_on_each_other(make_history, drifting):
    axes = as_figure(samples_drawn(make_history(examples_per_step=4))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["full"]
    assert max(area.get_paths()[0].vertices[:, 1].max() for area in axes.collections) == 200
    # The share of simple at each step, up to the lower layer's upper edge.
    lane = as_figure(timeline(drifting)).axes[0]
    edges = [tuple(map(float, point)) for point in lane.collections[0].get_paths()[0].vertices]
    for step, share in ((0.0, 1.0), (20.0, 0.5), (21.0, 0.25), (50.0, 0.25)):
        assert (step, share) in edges


def test_names_are_neither_formulas_nor_markup():
    panel = Panel([band(HOSTILE, 0, 1, "#eeeeee", text=HOSTILE),
                   line(HOSTILE, [(0, 0), (1, 1)], "#000000")], title=HOSTILE)  # fmt: skip
    chart = stack_panels([panel], 1)
    figure = as_figure(chart)
    figure.draw_without_rendering()
    # A <b> is plotly's markup, which the PNG leaves out only where it is ours.
    assert drawn_labels(figure) == [HOSTILE]
    assert [text.get_text() for text in figure.axes[0].texts] == [HOSTILE, HOSTILE]
    page = as_page(chart, HOSTILE)
    assert page.count("</script>") == 2
    assert "<title>&lt;/script&gt;&lt;b&gt;" in page


def test_the_page_needs_no_network(make_history):
    page = as_page(timeline(make_history()), "timeline")
    assert not re.findall(r'(?:src|href)\s*=\s*"', page)
    packed = re.search(r'application/gzip">([^<]*)</script>', page)[1]
    assert gzip.decompress(base64.b64decode(packed)).lstrip()[:20].startswith(b"/**")
    assert len(page) < 2.5e6  # plotly's build as it is would be twice that
    assert page == as_page(timeline(make_history()), "timeline")  # the same to the byte


def test_the_panels_of_twelve_trainings_stand_below_each_other(make_history, start, event):
    one = make_history([start, event(40, "end", "easy", "easy", {"simple": 1.0})])
    chart = compare_timelines({f"run {i}": one for i in range(12)})
    domains = [axis["domain"] for key, axis in chart.layout.items() if key.startswith("yaxis")]
    assert len(domains) == 24
    heights = [high - low for low, high in domains]
    assert min(heights) > 0 and sum(heights) > 0.6
    for (low, _), (_, below) in zip(domains, domains[1:], strict=False):
        assert low > below


def points(chart, axis="y"):
    return {
        trace["name"]: list(zip(trace["x"], trace["y"], strict=True))
        for trace in chart.data
        if trace["yaxis"] == axis
    }


def test_ranks_and_spectra_have_a_line_for_each_kind_of_layer():
    ranks = layer_ranks(RANKS)
    assert points(ranks) == {
        "mlp.up_proj": [(0, 2.0), (1, 1.0)],
        "blocks attn.qkv": [(0, 0.0)],
    }
    assert points(ranks, "y2") == {
        "mlp.up_proj": [(0, 0.75), (1, 0.75)],
        "blocks attn.qkv": [(0, 0)],
    }
    spectra = layer_spectra(RANKS)
    assert points(spectra) == {"mlp.up_proj": [(1.0, 0.625), (2.0, 0.1875)]}
    assert spectra.layout["xaxis"]["range"] == [0, 2]
