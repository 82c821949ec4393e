"""Bars and confusion matrices of an evaluation, as a figure and as a page."""

import json
import re

import pytest

from pixelis.figures import (
    accuracy_bars,
    bars_figure,
    bars_page,
    confusion_figure,
    confusion_page,
    confusions,
    outcome_bars,
)

HOSTILE = "</script><b>$x$"


def figure_of(page):
    return json.loads(re.search(r"const figure = (.*);\n", page)[1])


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


def test_the_page_of_accuracy_has_every_interval():
    plotly = figure_of(bars_page(accuracy_bars(ACCURACY), "accuracy"))
    assert [trace["name"] for trace in plotly["data"]] == ["base", "adapter"]
    assert plotly["data"][1]["y"] == [0.7, 0.6]
    assert plotly["data"][1]["error_y"]["array"] == pytest.approx([0.2, 0.2])
    assert plotly["data"][1]["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    assert plotly["data"][0]["x"] == ["simple<br>(n = 40)", "hard<br>(n = 40)"]
    assert plotly["data"][1]["hovertext"][0] == "adapter, simple: 0.700 [0.600, 0.900]"


def test_accuracy_groups_base_and_adapter_with_their_intervals():
    figure = bars_figure(accuracy_bars(ACCURACY))
    axes = figure.axes[0]
    assert list(figure.get_size_inches() * figure.dpi) == [1000, 560]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["base", "adapter"]
    assert [bar.get_height() for bar in axes.patches] == [0.4, 0.2, 0.7, 0.6]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "simple\n(n = 40)",
        "hard\n(n = 40)",
    ]
    whiskers = [segment for c in axes.collections for segment in c.get_segments()]
    assert [(round(s[0][1], 6), round(s[1][1], 6)) for s in whiskers] == [
        (0.3, 0.6),
        (0.1, 0.4),
        (0.6, 0.9),
        (0.5, 0.8),
    ]


def test_endings_are_shares_that_sum_to_one():
    bars = outcome_bars(ENDINGS)
    assert [series.label for series in bars.series] == [
        *("right", "wrong answer", "no answer", "something new"),
    ]
    assert [list(series.values) for series in bars.series] == [
        [0.5, 0], [0.25, 0.5], [0.25, 0], [0, 0.5],
    ]  # fmt: skip
    heights = [bar.get_y() + bar.get_height() for bar in bars_figure(bars).axes[0].patches]
    assert max(heights) == 1 and len(heights) == 8
    plotly = figure_of(bars_page(bars, "failures"))
    assert plotly["layout"]["barmode"] == "stack"
    assert plotly["data"][0]["hovertext"] == ["simple: 2 of 4 right", "hard: 0 of 2 right"]


def rows(task, *pairs):
    """Rows of (truth, answer) where an equal answer is right."""
    return [{"task": task, "truth": t, "answer": a, "right": t == a} for t, a in pairs]


def test_categories_have_a_row_and_a_column_each():
    pairs = [("10", "10"), ("2", "10"), ("2", "2"), ("2", None), ("10", "many"), ("2", "2")]
    (grid,) = confusions(rows("counting", *pairs))
    assert list(grid.truths) == ["2", "10"]
    assert list(grid.answers) == ["2", "10", "another", "no answer"]
    assert grid.counts == [[2, 1, 0, 1], [0, 1, 1, 0]]


def test_a_right_answer_counts_as_the_truth_however_it_is_spelled():
    table = [{"task": "t", "truth": "Red", "answer": " red.", "right": True}] * 2
    (grid,) = confusions(table)
    assert (list(grid.truths), grid.counts) == (["red"], [[2, 0, 0]])


def test_open_answers_are_right_wrong_or_none():
    pairs = [(f"text {i}", f"text {i}" if i % 2 else None) for i in range(8)]
    (grid,) = confusions([*rows("reading", *pairs), *rows("reading", ("a", "b"))])
    assert list(grid.answers) == ["right", "another", "no answer"]
    assert grid.counts == [[4, 1, 4]]


def test_both_drawings_show_the_counts_and_escape_the_names():
    table = rows(HOSTILE, *[("a", "a")] * 3, (HOSTILE, "a"), (HOSTILE, HOSTILE), (HOSTILE, None))
    grids = confusions([*table, *rows("other", ("x", "x"), ("x", "y"))])
    figure = confusion_figure(grids)
    assert [axes.get_title() for axes in figure.axes] == [HOSTILE, "other"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"3", "1"}
    page = confusion_page(grids, HOSTILE)
    assert page.count("</script>") == 2
    plotly = figure_of(page)
    assert plotly["data"][0]["text"] == [["1", "1", "", "1"], ["", "3", "", ""]]
    assert "<b>" not in plotly["data"][0]["y"][0]
    figure.savefig("/dev/null", format="png")


def test_many_tasks_fill_several_rows():
    grids = confusions([row for i in range(7) for row in rows(f"task {i}", ("x", "x"))])
    figure = confusion_figure(grids)
    assert list(figure.get_size_inches() * figure.dpi) == [990, 900]
    assert len(figure_of(confusion_page(grids, "c"))["data"]) == 7
