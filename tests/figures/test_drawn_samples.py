import pytest

from pixelis.figures import samples_drawn
from pixelis.figures.chart import Area, Rule
from pixelis.figures.drawn_samples import drawn_so_far


def test_counts_follow_the_mixes(course, start, advance, history):
    told = history | {"train/loss": [(100, 1.0)]}
    counts = drawn_so_far(course([start, advance], told, examples_per_step=4))
    assert counts == [
        (0, {"simple": 0, "hard": 0}),
        (50, {"simple": 200, "hard": 0}),
        (100, {"simple": 250, "hard": 150}),
    ]


def test_the_chart_stacks_difficulties_and_marks_advances(course):
    chart = samples_drawn(course(examples_per_step=2))
    (panel,) = chart.panels
    areas = {item.label: item.points[-1] for item in panel.items if isinstance(item, Area)}
    assert areas == {"simple": (50, 100), "hard": (50, 0)}
    rules = [(item.step, item.words) for item in panel.items if isinstance(item, Rule)]
    assert rules == [(50, "full")]
    assert panel.label == "examples drawn so far (number)"


def test_a_mix_that_drifts_is_added_up_step_by_step(drifting):
    assert drawn_so_far(drifting)[-1] == (
        50,
        {"simple": pytest.approx(20 + 0.5 + 0.25 * 29), "hard": pytest.approx(0.5 + 0.75 * 29)},
    )
    assert not [item for item in samples_drawn(drifting).panels[0].items if isinstance(item, Rule)]


def test_nothing_drawn_is_nothing_counted(course):
    assert drawn_so_far(course([], {})) == []
