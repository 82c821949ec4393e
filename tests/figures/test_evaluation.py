"""Bars and confusion matrices of an evaluation, as a figure and as a page."""

import json
import math
import re

import pytest

from pixelis.figures import (
    accuracy_bars,
    as_figure,
    as_page,
    confusions,
    failure_bars,
    outcome_bars,
)

HOSTILE = "</script><b>$x$"
ACCURACY = [
    {"difficulty": d, "model": m, "accuracy": a, "low": a - 0.1, "high": a + 0.2, "n": 40}
    for m, values in (("base", (0.4, 0.2)), ("adapter", (0.7, 0.6)))
    for d, a in zip(("simple", "hard"), values, strict=True)
]
ENDINGS = [
    {"group": group, "kind": kind}
    for group, kinds in {
        "simple": ["right", "right", "wrong answer", "no answer"],
        "hard": ["wrong answer", "something new"],
    }.items()
    for kind in kinds
]


def figure_of(page):
    return json.loads(re.search(r"const figure = (.*);\n", page)[1])


def test_accuracies_of_base_and_adapter_with_their_intervals():
    chart = accuracy_bars(ACCURACY)
    base, adapter = figure_of(as_page(chart, "accuracy"))["data"]
    assert (base["name"], adapter["name"], adapter["y"]) == ("base", "adapter", [0.7, 0.6])
    assert adapter["error_y"]["array"] == pytest.approx([0.2, 0.2])
    assert adapter["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    assert base["x"] == ["simple<br>(n = 40)", "hard<br>(n = 40)"]
    assert adapter["hovertext"][0] == "adapter, simple: 0.700 [0.600, 0.900]"
    figure = as_figure(chart)
    axes = figure.axes[0]
    assert list(figure.get_size_inches() * figure.dpi) == [1000, 560]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["base", "adapter"]
    assert [bar.get_height() for bar in axes.patches] == [0.4, 0.2, 0.7, 0.6]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "simple\n(n = 40)",
        "hard\n(n = 40)",
    ]
    whiskers = [segment for c in axes.collections for segment in c.get_segments()]
    ends = [(round(s[0][1], 6), round(s[1][1], 6)) for s in whiskers]
    assert ends == [(0.3, 0.6), (0.1, 0.4), (0.6, 0.9), (0.5, 0.8)]


def test_a_bar_without_an_interval_has_no_whiskers():
    few = {"low": None, "high": None, "n": 9}
    table = [row | few if row["difficulty"] == "hard" else row for row in ACCURACY]
    chart = accuracy_bars(table)
    base, _ = figure_of(as_page(chart, "accuracy"))["data"]
    assert base["error_y"]["array"] == [pytest.approx(0.2), None]
    assert base["error_y"]["arrayminus"] == [pytest.approx(0.1), None]
    assert base["hovertext"][1] == "base, hard: 0.200 –"
    axes = as_figure(chart).axes[0]
    whiskers = [segment for c in axes.collections for segment in c.get_segments()]
    drawn = [(s[0][1], s[1][1]) for s in whiskers if len(s) and not math.isnan(s[0][1])]
    assert drawn == [pytest.approx((0.3, 0.6)), pytest.approx((0.6, 0.9))]
    assert [text.get_text() for text in axes.texts] == ["0.40", "0.20", "0.70", "0.60"]


def test_every_kind_of_failure_has_bars_of_base_and_adapter():
    ends = {"low": 0.3, "high": 0.5, "n": 100}
    rows = [
        {"failure": kind, "model": model, "share": share, **ends}
        for model, shares in (("base", (0.43, 0.3)), ("adapter", (0.4, 0.35)))
        for kind, share in zip(("repeated call", "cut off"), shares, strict=True)
    ]
    chart = failure_bars(rows)
    base, adapter = chart.data
    assert base["x"] == ["repeated call<br>(n = 100)", "cut off<br>(n = 100)"]
    assert (base["y"], adapter["y"]) == ([0.43, 0.3], [0.4, 0.35])
    assert base["hovertext"][0] == "base, repeated call: 0.430 [0.300, 0.500]"
    assert chart.layout["yaxis"]["title"]["text"].startswith("share of rollouts (0 to 1)")


def test_outcomes_are_shares_that_sum_to_one():
    chart = outcome_bars(ENDINGS)
    assert {trace["name"]: trace["y"] for trace in chart.data} == {
        "right": [0.5, 0],
        "wrong answer": [0.25, 0.5],
        "no answer": [0.25, 0],
        "something new": [0, 0.5],
    }
    heights = [bar.get_y() + bar.get_height() for bar in as_figure(chart).axes[0].patches]
    assert max(heights) == 1 and len(heights) == 8
    plotly = figure_of(as_page(chart, "failures"))
    assert plotly["layout"]["barmode"] == "stack"
    assert plotly["data"][0]["hovertext"] == ["simple: 2 of 4 right", "hard: 0 of 2 right"]


def rows(task, *pairs):
    """Rows of (truth, answer) where an equal answer is right."""
    return [{"task": task, "truth": t, "answer": a, "right": t == a} for t, a in pairs]


def matrix(table):
    """The true answers, the given ones and the shares of the only task, and its numbers."""
    (trace,) = confusions(table).data
    counts = [[int(text or 0) for text in line] for line in trace["text"]]
    return trace["y"], trace["x"], counts


OPEN = [(f"text {i}", f"text {i}" if i % 2 else None) for i in range(8)] + [("a", "b")]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # A row and a column for each category, in the order of numbers.
        (rows("counting", ("10", "10"), ("2", "10"), ("2", "2"), ("2", None), ("10", "many"),
              ("2", "2")),
         (["2", "10"], ["2", "10", "another", "no answer"], [[2, 1, 0, 1], [0, 1, 1, 0]])),
        # A right answer counts as the truth, however it is spelled.
        ([{"task": "t", "truth": "Red", "answer": " red.", "right": True}] * 2,
         (["red"], ["red", "another", "no answer"], [[2, 0, 0]])),
        # Open answers are right, wrong or none.
        (rows("reading", *OPEN), (["truth"], ["right", "another", "no answer"], [[4, 1, 4]])),
    ],
)  # fmt: skip
def test_confusion_matrices(table, expected):
    assert matrix(table) == expected


def test_both_drawings_show_the_counts_and_escape_the_names():
    table = rows(HOSTILE, *[("a", "a")] * 3, (HOSTILE, "a"), (HOSTILE, HOSTILE), (HOSTILE, None))
    chart = confusions([*table, *rows("other", ("x", "x"), ("x", "y"))])
    figure = as_figure(chart)
    assert [axes.get_title() for axes in figure.axes] == [HOSTILE, "other"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"3", "1", ""}
    page = as_page(chart, HOSTILE)
    assert page.count("</script>") == 2
    plotly = figure_of(page)
    assert plotly["data"][0]["text"] == [["1", "1", "", "1"], ["", "3", "", ""]]
    assert "<b>" not in plotly["data"][0]["y"][0]
    figure.savefig("/dev/null", format="png")


def test_many_tasks_fill_several_rows():
    chart = confusions([row for i in range(7) for row in rows(f"task {i}", ("x", "x"))])
    figure = as_figure(chart)
    assert list(figure.get_size_inches() * figure.dpi) == [990, 1140]
    assert len(figure_of(as_page(chart, "c"))["data"]) == 7
