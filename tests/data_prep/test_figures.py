"""The figures of a data set, read back from their matplotlib objects."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pixelis.data.example import DIFFICULTIES, SAMPLE_TYPES, Example, Step
from pixelis.data_prep.figures import (
    EXAMPLES_IN_ROW,
    MAX_PANELS,
    difficulty_figure,
    examples_figure,
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
    trajectory=(BOX, BOX),
    conclusion="",
    answer="2",
    ground_truth="2",
    difficulty_score=0.4242,
)


def shown(figure):
    """The axes that have an image."""
    return [axes for axes in figure.axes if axes.images]


def test_what_is_said_about_an_example():
    figure = examples_figure({"simple": [PLAIN]})
    (axes,) = shown(figure)
    assert axes.get_title("left").splitlines() == [
        "object counting",
        "score 0.42, 2 steps",
        "How many red objects are there?",
        "answer: 2",
    ]
    assert axes.texts[0].get_text() == "simple"
    assert figure.get_size_inches()[0] * figure.dpi == 1200
    trap = replace(PLAIN, sample_type="trap_logical", trajectory=(BOX,))
    (axes,) = shown(examples_figure({"hard": [trap]}))
    assert axes.get_title("left").splitlines()[:2] == [
        "object counting, trap logical",
        "score 0.42, 1 step",
    ]


def is_marked(pixels):
    return bool((pixels.max(-1) > 0).any())


def test_calls_are_marked_in_their_frames():
    frames = tuple(Image.new("RGB", (60, 40)) for _ in range(3))
    (axes,) = shown(
        examples_figure({"medium": [replace(PLAIN, images=frames, trajectory=[TRACK])]})
    )
    picture = np.asarray(axes.images[0].get_array())
    half = picture.shape[0] // 2
    assert [
        is_marked(picture[y : y + 80, x : x + 100]) for y, x in ((0, 0), (0, half), (half, 0))
    ] == [True, False, True]
    (axes,) = shown(examples_figure({"medium": [replace(PLAIN, images=frames * 30)]}))
    assert axes.images[0].get_array().shape == picture.shape, "of many frames four"


def test_rows_are_in_the_order_of_difficulty_and_no_longer_than_fits():
    figure = examples_figure({"hard": [PLAIN] * 9, "simple": [PLAIN], "medium": []})
    names = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert names == ["simple", "hard"] and len(shown(figure)) == 1 + EXAMPLES_IN_ROW


@pytest.mark.parametrize(
    "question",
    [
        "Which one? " * 60,
        'SEGMENT_OBJECT_AT {"x": 14, "y": 14} -> {"area": 145, "bbox": [1, 2, 3, 4]} ' * 5,
        "a $x^2 and <b> \n\n\n and \\frac{1}",
    ],
)
def test_nothing_overlaps_or_is_cut_off(question, tmp_path):
    wide, tall = Image.new("RGB", (400, 20)), Image.new("RGB", (20, 400))
    long = replace(PLAIN, question=question, answer="two " * 40)
    row = [long, replace(long, images=(wide,)), replace(long, images=(tall,) * 3), long]
    figure = examples_figure({"simple": row, "medium": row, "hard": row})
    figure.savefig(tmp_path / "figure.png")
    boxes = [axes._left_title.get_window_extent() for axes in figure.axes]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        for other in boxes[:number]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            assert apart or box.y1 <= other.y0 + 1 or other.y1 <= box.y0 + 1


def test_no_examples_no_image_and_no_text(tmp_path):
    bare = replace(PLAIN, images=(), question="", answer="")
    for examples in ({}, {"simple": [bare]}):
        figure = examples_figure(examples)
        figure.savefig(tmp_path / "none.png")
        assert shown(figure) == []


def facts_of(*tasks, each=9):
    return pd.DataFrame(
        [
            {
                "task": task,
                "sample_type": SAMPLE_TYPES[index % 3],
                "difficulty": DIFFICULTIES[index * 3 // each],
                "score": 0.2 + 0.6 * index / each,
            }
            for task in tasks
            for index in range(each)
        ]
    )


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}


def cuts(axes):
    return [line.get_xdata()[0] for line in axes.lines]


def test_a_panel_for_each_task_and_each_type():
    thresholds = {"values": {"text_extraction": [0.4, 0.6], "object_counting": [0.5, None]}}
    figure = difficulty_figure(facts_of("text_extraction", "object_counting"), thresholds)
    titles = panels(figure)
    assert list(titles) == [
        "object counting\nn = 9",
        "text extraction\nn = 9",
        "positive\nn = 6",
        "outcome negative\nn = 6",
        "trap perceptual\nn = 6",
    ]
    assert [cuts(axes) for axes in titles.values()] == [[0.5], [0.4, 0.6], [], [], []]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*DIFFICULTIES, "threshold"]
    assert len(titles["text extraction\nn = 9"].patches) == len(DIFFICULTIES)
    assert figure.get_supxlabel() == "difficulty score (0 easy to 1 hard)"
    assert figure.get_size_inches()[0] * figure.dpi == 1200


def test_thresholds_for_all_tasks_are_on_every_panel():
    figure = difficulty_figure(facts_of("a"), {"values": {"all": [0.3, 0.7]}})
    assert all(cuts(axes) == [0.3, 0.7] for axes in panels(figure).values())


def test_of_many_tasks_the_largest_are_shown():
    facts = facts_of(*(f"task {n:02}" for n in range(30)), "task 29")
    titles = [title for title in panels(difficulty_figure(facts, {})) if title.startswith("task")]
    assert len(titles) == MAX_PANELS
    assert titles[-1] == "task 29\nn = 18"


@pytest.mark.parametrize(
    "facts",
    [
        facts_of("a", each=1),
        facts_of("a" * 90 + " b$x^2$"),
        facts_of(*(f"a_rather_long_name_of_a_task_{n}" for n in range(5))),
    ],
)
def test_titles_do_not_run_into_each_other(facts, tmp_path):
    figure = difficulty_figure(facts, {})
    figure.savefig(tmp_path / "figure.png")
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_visible()]
    for left, right in zip(boxes[:4], boxes[1:5], strict=False):
        assert left.x1 < right.x0 or left.y0 > right.y1
