"""A chart drawn by matplotlib and as an interactive page: equal, and without a network."""

import base64
import gzip
import io
import json
import re

import plotly.graph_objects
import pytest
from matplotlib.colors import to_rgb

from pixelis.figures import (
    as_figure,
    as_page,
    compare_timelines,
    loss_by_difficulty,
    samples_drawn,
    timeline,
)
from pixelis.figures.chart import Area, Band, Chart, Line, Panel, VerticalLine, legend_order
from pixelis.figures.draw_html import as_plotly


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_it_has_its_size_and_a_legend_with_every_label_once(make_history):
    figure = as_figure(timeline(make_history(min_performance=0.6, rollback_threshold=-0.15)))
    content = io.BytesIO()
    figure.savefig(content, format="png")
    header = content.getvalue()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (1000, 560)
    assert labels(figure) == [
        "stage easy",
        "advance",
        "rollback",
        "simple",
        "hard",
        "current mix",
        "to beat: before -0.15",
        "next mix at a decision",
        "minimum to advance (0.6)",
        "training loss",
    ]


def test_the_legend_lies_outside_of_the_axes(make_history):
    figure = as_figure(timeline(make_history()))
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= 1000
    assert all(axes.get_window_extent().x1 < legend.x0 for axes in figure.axes)


def test_axes_say_what_they_show(make_history):
    lane, lines, loss = as_figure(timeline(make_history(metric="performance"))).axes
    assert [text.get_text() for text in lane.texts] == ["easy"]
    assert lines.get_ylabel() == "performance (0 to 1)"
    assert (loss.get_xlabel(), loss.get_xlim()) == ("optimiser step", (0, 100))


def test_the_bold_line_is_over_the_thin_ones(make_history):
    lines = as_figure(timeline(make_history())).axes[1].lines
    (bold,) = [line for line in lines if line.get_linewidth() == 3.0]
    assert list(bold.get_ydata()) == [0.2, 0.8]
    assert bold.get_zorder() > max(line.get_zorder() for line in lines if line is not bold)


def test_areas_lie_on_each_other_in_their_colours(make_history, drifting):
    axes = as_figure(samples_drawn(make_history(examples_per_step=4))).axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["full"]
    assert max(area.get_paths()[0].vertices[:, 1].max() for area in axes.collections) == 200
    lane = as_figure(timeline(drifting)).axes[0]
    # The share of simple at each step, up to the lower layer's upper edge.
    edges = [tuple(map(float, point)) for point in lane.collections[0].get_paths()[0].vertices]
    for step, share in ((0.0, 1.0), (20.0, 0.5), (21.0, 0.25), (50.0, 0.25)):
        assert (step, share) in edges
    assert lane.collections[0].get_facecolor()[0][:3].tolist() == list(to_rgb("#0072B2"))


def test_a_name_with_dollars_is_no_formula():
    panel = Panel([Line("a $x_1$", [(0, 0), (1, 1)], "#000000")], title="b $y$ c")
    figure = as_figure(Chart([panel], 1))
    figure.draw_without_rendering()
    assert labels(figure) == ["a $x_1$"]
    assert figure.axes[0].get_title("left") == "b $y$ c"
    assert not figure.legends[0].get_texts()[0].get_parse_math()


@pytest.fixture
def charts(make_history, drifting):
    whole = make_history(min_performance=0.6, rollback_threshold=-0.15)
    histories = {"a": whole, "b": drifting}
    drawn = [
        make(each)
        for make in (timeline, samples_drawn, loss_by_difficulty)
        for each in histories.values()
    ]
    return [*drawn, compare_timelines(histories)]


def test_plotly_takes_every_chart(charts):
    for chart in charts:
        figure = as_plotly(chart)
        built = plotly.graph_objects.Figure(figure["data"], figure["layout"])
        assert json.loads(built.to_json())["data"]


def test_both_renderings_have_the_same_legend(charts):
    for chart in charts:
        traces = [trace for trace in as_plotly(chart)["data"] if trace["showlegend"]]
        shown = [trace["name"] for trace in sorted(traces, key=lambda each: each["legendrank"])]
        drawn = [text.get_text() for text in as_figure(chart).legends[0].get_texts()]
        assert shown == drawn


def test_both_renderings_have_the_same_numbers(make_history):
    chart = timeline(make_history(rollback_threshold=-0.15))
    traces = [t for t in as_plotly(chart)["data"] if t["x"] != [None]]
    drawn = [line for axes in as_figure(chart).axes for line in axes.lines]
    # Lines that go down through a panel are shapes on the page.
    drawn = [line for line in drawn if list(line.get_ydata()) != [0, 1]]
    assert [(t["x"], t["y"]) for t in traces] == [
        (list(line.get_xdata()), list(line.get_ydata())) for line in drawn
    ]


def test_the_mouse_finds_step_strata_delta_and_reason(make_history):
    traces = as_plotly(timeline(make_history()))["data"]
    (rollbacks,) = [trace for trace in traces if trace["name"] == "rollback"]
    (note,) = rollbacks["hovertext"]
    for part in ("step 20", "drop", "delta -0.3000", "simple 0.700"):
        assert part in note


def test_the_page_needs_no_network(make_history):
    page = as_page(timeline(make_history()), "timeline")
    assert not re.findall(r'(?:src|href)\s*=\s*"', page)
    packed = re.search(r'application/gzip">([^<]*)</script>', page)[1]
    assert gzip.decompress(base64.b64decode(packed)).lstrip()[:20].startswith(b"/**")
    assert len(page) < 2.5e6  # plotly's build as it is would be twice that
    assert page == as_page(timeline(make_history()), "timeline")  # the same to the byte


def test_a_name_cannot_end_the_script(make_history, event):
    stage = "</script><script>alert(1)</script>"
    bad = [event(0, "start", None, stage, {"simple": 1.0})]
    page = as_page(timeline(make_history(bad)), "<b>title</b>")
    assert "alert(1)</script>" not in page
    assert "<title>&lt;b&gt;title" in page


def test_the_legend_has_stages_first_and_layers_from_the_upper_one_down():
    first = Panel(
        [Band("one", 0, 1, "#000"), Line("line", [(0, 0)], "#000"), VerticalLine(1, "#000", "x")]
    )
    layers = [Area("low", [(0, 1)], "#000"), Area("high", [(0, 1)], "#000")]
    last = Panel([*layers, Band("two", 1, 2, "#000"), Band("tried", 1, 2, "#000", hatched=True)])
    order = legend_order(Chart([first, last], 2))
    assert order == ["one", "two", "high", "low", "line", "tried"]


def test_lines_across_are_white_on_bands():
    assert Panel([Band("one", 0, 1, "#000")]).grid == "#ffffff"
    assert Panel([]).grid != "#ffffff"
