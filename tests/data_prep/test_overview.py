"""The histograms, read back from their matplotlib objects."""

import pytest

from pixelis.data.example import DIFFICULTIES, SAMPLE_TYPES
from pixelis.data_prep.figures import MAX_PANELS, difficulty_figure


def rows(*tasks, each=9):
    return [
        {
            "task": task,
            "sample_type": SAMPLE_TYPES[index % 3],
            "split": "train",
            "difficulty": DIFFICULTIES[index * 3 // each],
            "score": 0.2 + 0.6 * index / each,
        }
        for task in tasks
        for index in range(each)
    ]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}


def cuts(axes):
    return [line.get_xdata()[0] for line in axes.lines]


def heights(axes):
    """Examples by category, in the order of the legend."""
    layers = [patch.get_data() for patch in axes.patches]
    return [float((layer.values - layer.baseline).sum()) for layer in layers]


def test_a_panel_for_each_task_and_each_type():
    thresholds = {"values": {"text_extraction": [0.4, 0.6], "object_counting": [0.5, None]}}
    figure = difficulty_figure(rows("text_extraction", "object_counting"), thresholds)
    shown = panels(figure)
    assert list(shown) == [
        "object counting\nn = 9",
        "text extraction\nn = 9",
        "positive\nn = 6",
        "outcome negative\nn = 6",
        "trap perceptual\nn = 6",
    ]
    assert [cuts(axes) for axes in shown.values()] == [[0.5], [0.4, 0.6], [], [], []]
    assert heights(shown["text extraction\nn = 9"]) == [3, 3, 3]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*DIFFICULTIES, "threshold"]
    assert figure.get_supxlabel() == "difficulty score (0 easy to 1 hard)"
    assert figure.get_size_inches()[0] * figure.dpi == 1200


def test_thresholds_for_all_tasks_are_on_every_panel():
    figure = difficulty_figure(rows("a"), {"method": "fixed", "values": {"all": [0.3, 0.7]}})
    assert all(cuts(axes) == [0.3, 0.7] for axes in panels(figure).values())


def test_of_many_tasks_the_largest_are_shown():
    meta = rows(*(f"task {n:02}" for n in range(30))) + rows("task 29")
    titles = [title for title in panels(difficulty_figure(meta, {})) if title.startswith("task")]
    assert len(titles) == MAX_PANELS
    assert titles[-1] == "task 29\nn = 18"


@pytest.mark.parametrize("meta", [[], rows("a", each=1), rows("a" * 90 + " b$x^2$")])
def test_it_draws_whatever_there_is(meta, tmp_path):
    difficulty_figure(meta, {}).savefig(tmp_path / "figure.png")


def test_titles_do_not_run_into_each_other(tmp_path):
    figure = difficulty_figure(rows(*(f"a_rather_long_name_of_a_task_{n}" for n in range(5))), {})
    figure.savefig(tmp_path / "figure.png")
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_visible()]
    for left, right in zip(boxes[:4], boxes[1:5], strict=True):
        assert left.x1 < right.x0
