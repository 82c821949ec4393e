import pytest

from pixelis.experiments.ablate.arms import ARMS
from pixelis.experiments.ablate.comparison import compare_arms
from pixelis.experiments.ablate.figure import ablation_figure

MIX = {"simple": 0.2, "medium": 0.3, "hard": 0.5}


@pytest.fixture
def table(make_outcome):
    return compare_arms(
        {
            arm: [
                make_outcome(arm, seed, (0.5, 0.4, 0.3), [(10, 0.2 + i / 20), (20, 0.6 + i / 50)])
                for seed in range(3)
            ]
            for i, arm in enumerate(ARMS)
        },
        MIX,
        0.95,
        eval_steps=10,
        max_steps=20,
    )


def test_both_sides_have_every_arm_in_its_colour(table):
    left, right = ablation_figure(table, metric="answer_accuracy", steps=20).axes
    handles, labels = left.get_legend_handles_labels()
    assert labels == [row.arm for row in table.rows]
    colours = [handle[0].get_color() for handle in handles]
    assert len(set(colours)) == len(colours)
    curves = [line for line in right.lines if len(line.get_xdata()) == 2][: len(labels)]
    assert [line.get_color() for line in curves] == colours
    assert list(curves[0].get_ydata()) == pytest.approx([0.2, 0.6])


def test_axes_say_what_they_show(table):
    left, right = ablation_figure(table, metric="answer_accuracy", steps=20).axes
    assert left.get_ylabel() == "test answer accuracy (0 to 1); mean of 3 seeds, 95 % interval"
    assert [tick.get_text() for tick in left.get_xticklabels()] == [
        "simple",
        "medium",
        "hard",
        "all",
    ]
    assert (right.get_xlabel(), right.get_xlim()) == ("optimiser step", (0, 20))
    assert "answer accuracy" in right.get_ylabel()
    assert f"target {table.target:.3f}" in [text.get_text() for text in right.texts]
