import pytest

from pixelis.figures import loss_by_difficulty, samples_drawn
from pixelis.figures.by_difficulty import count_drawn
from pixelis.figures.chart import Area, Band, Line, VerticalLine


def test_counts_follow_the_mixes(make_history, start, advance, metrics):
    metrics = metrics | {"train/loss": [(100, 1.0)]}
    counts = count_drawn(make_history([start, advance], metrics, examples_per_step=4))
    assert counts == [
        (0, {"simple": 0, "hard": 0}),
        (50, {"simple": 200, "hard": 0}),
        (100, {"simple": 250, "hard": 150}),
    ]


def test_the_chart_stacks_difficulties_and_marks_advances(make_history):
    chart = samples_drawn(make_history(examples_per_step=2))
    (panel,) = chart.panels
    areas = {item.label: item.points[-1] for item in panel.items if isinstance(item, Area)}
    assert areas == {"simple": (50, 100), "hard": (50, 0)}
    rules = [(item.step, item.text) for item in panel.items if isinstance(item, VerticalLine)]
    assert rules == [(50, "full")]
    assert panel.label == "examples drawn so far (number)"


def test_a_mix_that_drifts_is_added_up_step_by_step(drifting):
    assert count_drawn(drifting)[-1] == (
        50,
        {"simple": pytest.approx(20 + 0.5 + 0.25 * 29), "hard": pytest.approx(0.5 + 0.75 * 29)},
    )
    assert not [
        item for item in samples_drawn(drifting).panels[0].items if isinstance(item, VerticalLine)
    ]


def test_nothing_drawn_is_nothing_counted(make_history):
    assert count_drawn(make_history([], {})) == []


def test_a_line_for_each_difficulty_over_the_stages(make_history):
    (panel,) = loss_by_difficulty(make_history()).panels
    lines = {item.label: item.points for item in panel.items if isinstance(item, Line)}
    assert lines == {"simple": [(0, 1.5), (50, 0.5)], "hard": [(0, 2.0), (50, 1.0)]}
    assert [item.label for item in panel.items if isinstance(item, Band)] == ["stage easy"]
    assert panel.label == "validation loss (nats per token)"
