"""Marks of objects are filled from the record, or it is refused. The image has 64 x 48 pixels."""

import json

import pytest
from PIL import Image


def chat(question, answer, objects, images=("c.jpg",)):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": list(images), "objects": objects}


BOX = {"ref": ["the circle"], "bbox": [[10, 10, 31, 31]]}


@pytest.mark.parametrize(
    ("question", "answer", "objects", "expected"),
    [
        ("Find <ref-object>.", "<bbox>", BOX, ("Find the circle.", "[10, 10, 31, 31]")),
        ("What is at <bbox>?", "<ref-object>", BOX, ("What is at [10, 10, 31, 31]?", "the circle")),
        ("Find it.", "<bbox>", {"bbox": [[10.4, 9.6, 31, 31]]}, ("Find it.", "[10, 10, 31, 31]")),
        ("Point.", "<bbox>", {"bbox": [[20, 21]]}, ("Point.", "[20, 21]")),
        (
            "Find it.",
            "<bbox>",
            {"bbox": [[0.5, 0.5, 1, 1]], "bbox_type": "norm1"},
            ("Find it.", "[32, 24, 64, 48]"),
        ),
        (
            "Both?",
            "<bbox> and <bbox>",
            {"bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "ref": None},
            ("Both?", "[1, 2, 3, 4] and [5, 6, 7, 8]"),
        ),
    ],
)
@pytest.mark.parametrize("make", [dict, json.dumps], ids=["object", "text"])
def test_marks_are_filled_in_order(take, question, answer, objects, expected, make):
    (example,) = take(chat(f"<image>{question}", answer, make(objects)), "messages")
    assert (example.question, example.answer) == expected


def test_shares_are_of_their_own_image(take, folder):
    Image.new("RGB", (100, 20)).save(folder / "wide.png")
    objects = {"bbox": [[0, 0, 0.5, 0.5]], "bbox_type": "norm1", "image_id": [1]}
    data = chat("Find it.", "<bbox>", objects, images=["c.jpg", "wide.png"])
    assert take(data, "messages")[0].answer == "[0, 0, 50, 10]"


def test_a_mark_in_the_thought_comes_before_the_answer_s(take):
    objects = {"bbox": [[1, 1, 2, 2], [3, 3, 4, 4]]}
    data = chat("Find it.", "<think>At <bbox>?</think><answer><bbox></answer>", objects)
    (example,) = take(data, "messages")
    assert (example.conclusion, example.answer) == ("At [1, 1, 2, 2]?", "[3, 3, 4, 4]")


def test_a_question_with_its_answer_is_filled_too(take):
    data = {"query": "Find <ref-object>.", "response": "<bbox>", "image": "c.jpg", "objects": BOX}
    (example,) = take(data, "cota")
    assert (example.question, example.answer) == ("Find the circle.", "[10, 10, 31, 31]")


def test_a_pair_of_tags_is_no_mark(take):
    data = chat("Answer as <bbox>x1, y1, x2, y2</bbox>.", "<bbox>1, 2, 3, 4</bbox>", None)
    assert take(data, "messages")[0].answer == "<bbox>1, 2, 3, 4</bbox>"


def test_objects_without_marks_are_no_matter(take):
    assert take(chat("What?", "A.", [{"label": "dog"}]), "messages")[0].answer == "A."


@pytest.mark.parametrize(
    ("objects", "reason", "text"),
    [
        (None, "object_count", "the turns have 1 <bbox>, the record's objects 0"),
        ({"ref": ["a"]}, "object_count", "the turns have 1 <bbox>, the record's objects 0"),
        ({"bbox": [[1, 2, 3, 4]] * 2}, "object_count", "have 1 <bbox>, the record's objects 2"),
        ({"bbox": [[1, 2, 3]]}, "wrong_type", "bbox must be 2 or 4 numbers, got [1, 2, 3]"),
        ({"bbox": [[1, 2, 3, "4"]]}, "wrong_type", "bbox must be 2 or 4 numbers"),
        ({"bbox": [[1, 2, 3, 1e300]]}, "wrong_type", "bbox must be 2 or 4 numbers"),
        ({"bbox": [5]}, "wrong_type", "bbox must be 2 or 4 numbers, got 5"),
        ({"bbox": 5}, "wrong_type", "bbox of objects must be a list, got 5"),
        ({"bbox": [[1, 2, 3, 4]], "bbox_type": "norm1000"}, "wrong_type", "real or norm1, got 'no"),
        (
            {"bbox": [[0, 0, 1, 1]], "bbox_type": "norm1", "image_id": [1]},
            "wrong_type",
            "image_id must be below 1 images, got 1",
        ),
        ([{"bbox": [1, 2, 3, 4]}], "wrong_type", "objects must be an object, got [{"),
        ("{", "wrong_type", "objects must be JSON"),
    ],
)
def test_objects_that_do_not_fit_the_marks(refuse, objects, reason, text):
    found = refuse(chat("Find it.", "<bbox>", objects), "messages")
    assert found[0] == reason and text in found[1]
