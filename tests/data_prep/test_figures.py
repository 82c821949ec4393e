"""The figures of a data set, read back from their matplotlib objects."""

from dataclasses import replace

import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from pixelis.data.example import DIFFICULTIES, SAMPLE_TYPES, Example, Step
from pixelis.data_prep.figures import (
    EXAMPLES_IN_ROW,
    MAX_FRAMES,
    MAX_PANELS,
    difficulty_figure,
    examples_figure,
)

POINT = Step(
    "Look.", "SEGMENT_OBJECT_AT", {"x": 30, "y": 20}, {"area": 9, "bbox": [28, 18, 32, 22]}
)
BOX = Step("Look.", "READ_TEXT", {"bbox": [0, 0, 20, 10]}, {"text": "AB"})
TRACK = Step(
    "Follow it.",
    "TRACK_OBJECT",
    {"frames": [1, 3], "bbox": [0, 0, 10, 10]},
    {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]]},
)
PLAIN = Example(
    id="1",
    task="object_counting",
    sample_type="positive",
    question="How many red objects are there?",
    images=(Image.new("RGB", (60, 40)),),
    trajectory=(POINT, BOX, POINT),
    conclusion="",
    answer="2",
    ground_truth="2",
    difficulty_score=0.4242,
)


def words(figure):
    return [text.get_text() for text in figure.texts]


def marks(axes):
    """What is drawn on an image: number -> its box or point."""
    boxes = [p for p in axes.patches if isinstance(p, Rectangle)]
    places = [(b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in boxes]
    places += [tuple(float(v[0]) for v in line.get_data()) for line in axes.lines]
    labels = [t.get_text() for t in axes.texts if "frame" not in t.get_text()]
    return sorted(labels), places


def test_what_is_said_about_an_example():
    figure = examples_figure({"simple": [PLAIN]})
    assert words(figure) == [
        "simple",
        "object counting",
        "score 0.42, 3 steps",
        "How many red objects are there?",
        "answer: 2",
    ]
    assert figure.get_size_inches()[0] * figure.dpi == 1200
    trap = replace(PLAIN, sample_type="trap_logical", trajectory=(BOX,))
    assert words(examples_figure({"hard": [trap]}))[1:3] == [
        "object counting, trap logical",
        "score 0.42, 1 step",
    ]


def test_calls_are_marked_by_their_numbers():
    (axes,) = examples_figure({"simple": [PLAIN]}).axes
    # The same point twice has one mark; the image keeps its bounds.
    assert marks(axes) == (["1,3", "2"], [(-0.5, -0.5, 20, 10), (30.0, 20.0)])
    assert axes.get_xlim() == (-0.5, 59.5)
    assert axes.get_ylim() == (39.5, -0.5)


def test_places_outside_the_image_are_left_out():
    far = Step("", "SEGMENT_OBJECT_AT", {"x": 900, "y": 20}, {"error": "outside"})
    odd = Step("", "SEGMENT_OBJECT_AT", {"x": "left"}, {"error": "no number"})
    (axes,) = examples_figure({"simple": [replace(PLAIN, trajectory=(far, odd))]}).axes
    assert marks(axes) == ([], [])


def test_frames_are_side_by_side_with_the_box_in_each():
    frames = tuple(Image.new("RGB", (60, 40)) for _ in range(3))
    figure = examples_figure({"medium": [replace(PLAIN, images=frames, trajectory=(TRACK, BOX))]})
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["frame 1", "frame 2", "frame 3"]
    assert [marks(axes) for axes in figure.axes] == [
        (["1", "2"], [(-0.5, -0.5, 10, 10), (-0.5, -0.5, 20, 10)]),
        ([], []),
        (["1"], [(19.5, -0.5, 10, 10)]),
    ]


def test_of_many_frames_the_first_the_last_and_some_between():
    frames = tuple(Image.new("RGB", (60, 40)) for _ in range(100))
    figure = examples_figure({"medium": [replace(PLAIN, images=frames)]})
    assert len(figure.axes) == MAX_FRAMES
    shown = [axes.texts[0].get_text() for axes in figure.axes]
    assert shown == ["frame 1", "frame 34", "frame 67", "frame 100"]


def test_rows_are_in_the_order_of_difficulty_and_no_longer_than_fits():
    figure = examples_figure({"hard": [PLAIN] * 9, "simple": [PLAIN], "medium": []})
    assert [word for word in words(figure) if word in ("simple", "medium", "hard")] == [
        "simple",
        "hard",
    ]
    assert len(figure.axes) == 1 + EXAMPLES_IN_ROW


@pytest.mark.parametrize(
    "question",
    [
        "Which one? " * 60,
        "W" * 400,
        'SEGMENT_OBJECT_AT {"x": 14, "y": 14} -> {"area": 145, "bbox": [1, 2, 3, 4]} ' * 5,
        "a $x^2 and <b> \n\n\n and \\frac{1}",
    ],
)
def test_nothing_overlaps_or_is_cut_off(question, tmp_path):
    wide, tall = Image.new("RGB", (400, 20)), Image.new("RGB", (20, 400))
    long = replace(PLAIN, question=question, answer="two " * 40)
    shown = [long, replace(long, images=(wide,)), replace(long, images=(tall,) * 3), long]
    figure = examples_figure({"simple": shown, "medium": shown, "hard": shown})
    figure.savefig(tmp_path / "figure.png")
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        for other in boxes[:number]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            # Lines of one text may touch by a pixel.
            assert apart or box.y1 <= other.y0 + 1 or other.y1 <= box.y0 + 1


def test_no_examples_no_image_and_no_text(tmp_path):
    examples_figure({}).savefig(tmp_path / "none.png")
    bare = replace(PLAIN, images=(), question="", answer="")
    figure = examples_figure({"simple": [bare]})
    figure.savefig(tmp_path / "bare.png")
    assert figure.axes == []


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
