"""A chart as an HTML page: plotly's own schema takes it, and it needs no network."""

import base64
import gzip
import json
import re

import plotly.graph_objects
import pytest

from pixelis.figures import (
    as_figure,
    as_page,
    compare_timelines,
    loss_by_difficulty,
    samples_drawn,
    timeline,
)
from pixelis.figures.draw_html import as_plotly


@pytest.fixture
def charts(course, drifting):
    whole = course(min_performance=0.6, rollback_threshold=-0.15)
    courses = {"a": whole, "b": drifting}
    drawn = [
        make(each)
        for make in (timeline, samples_drawn, loss_by_difficulty)
        for each in courses.values()
    ]
    return [*drawn, compare_timelines(courses)]


def test_plotly_takes_every_chart(charts):
    for chart in charts:
        figure = as_plotly(chart)
        built = plotly.graph_objects.Figure(figure["data"], figure["layout"])
        assert json.loads(built.to_json())["data"]


def test_both_renderings_have_the_same_legend(charts):
    for chart in charts:
        traces = [trace for trace in as_plotly(chart)["data"] if trace["showlegend"]]
        shown = [trace["name"] for trace in sorted(traces, key=lambda each: each["legendrank"])]
        still = [text.get_text() for text in as_figure(chart).legends[0].get_texts()]
        assert shown == still


def test_both_renderings_have_the_same_numbers(course):
    chart = timeline(course(rollback_threshold=-0.15))
    traces = [t for t in as_plotly(chart)["data"] if t["x"] != [None]]
    drawn = [line for axes in as_figure(chart).axes for line in axes.lines]
    # Lines that go down through a panel are shapes on the page.
    drawn = [line for line in drawn if list(line.get_ydata()) != [0, 1]]
    assert [(t["x"], t["y"]) for t in traces] == [
        (list(line.get_xdata()), list(line.get_ydata())) for line in drawn
    ]


def test_the_mouse_finds_step_strata_delta_and_reason(course):
    traces = as_plotly(timeline(course()))["data"]
    (rollbacks,) = [trace for trace in traces if trace["name"] == "rollback"]
    (note,) = rollbacks["hovertext"]
    for part in ("step 20", "drop", "delta -0.3000", "simple 0.700"):
        assert part in note


def test_the_page_is_whole(course):
    page = as_page(timeline(course()), "timeline")
    assert not re.findall(r'(?:src|href)\s*=\s*"', page)
    packed = re.search(r'application/gzip">([^<]*)</script>', page)[1]
    assert gzip.decompress(base64.b64decode(packed)).lstrip()[:20].startswith(b"/**")
    assert len(page) < 2.5e6  # plotly's build as it is would be twice that
    assert page == as_page(timeline(course()), "timeline")  # the same to the byte


def test_a_name_cannot_end_the_script(course, event):
    stage = "</script><script>alert(1)</script>"
    bad = [event(0, "start", None, stage, {"simple": 1.0})]
    page = as_page(timeline(course(bad)), "<b>title</b>")
    assert "alert(1)</script>" not in page
    assert "<title>&lt;b&gt;title" in page
