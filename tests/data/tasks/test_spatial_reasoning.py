import re

import pytest

from pixelis.data.tasks.spatial_reasoning import EXTREME, RELATION

# (row, column) -> a number that is least for the winner, and a before b where the relation holds.
ORDER = {
    "leftmost": lambda cell: cell[1],
    "rightmost": lambda cell: -cell[1],
    "topmost": lambda cell: cell[0],
    "bottommost": lambda cell: -cell[0],
    "left of": lambda cell: cell[1],
    "right of": lambda cell: -cell[1],
    "above": lambda cell: cell[0],
    "below": lambda cell: -cell[0],
}


@pytest.fixture(scope="module")
def mine(examples):
    return [example for example in examples if example.task == "spatial_reasoning"]


def asked_about(example, match_phrasing):
    """The word or relation, the names in the question, and the phrasing."""
    phrasing, gaps = match_phrasing(example.question, RELATION)
    if phrasing:
        return gaps["relation"], [gaps["a"], gaps["b"]], phrasing
    phrasing, gaps = match_phrasing(example.question, EXTREME)
    return gaps["word"], re.split(", the | or the ", gaps["names"].removeprefix("the ")), phrasing


def test_the_answer_is_the_truth_of_the_scene(mine, match_phrasing):
    for example in mine:
        word, names, phrasing = asked_about(example, match_phrasing)
        cells = {thing["name"]: thing["cell"] for thing in example.provenance["objects"]}
        places = [ORDER[word](cells[name]) for name in names]
        if phrasing in RELATION:
            assert places[0] != places[1]
            assert example.answer == ("yes" if places[0] < places[1] else "no")
        else:
            assert places.count(min(places)) == 1
            assert example.answer == names[places.index(min(places))]


def test_the_answer_follows_from_the_boxes(mine, match_phrasing):
    for example in mine:
        word, names, phrasing = asked_about(example, match_phrasing)
        boxes = [step.result["bbox"] for step in example.trajectory if step.supervised]
        assert len(boxes) == len(names)
        middles = [((box[1] + box[3]) / 2, (box[0] + box[2]) / 2) for box in boxes]
        places = [ORDER[word](middle) for middle in middles]
        if phrasing in RELATION:
            assert example.answer == ("yes" if places[0] < places[1] else "no")
        else:
            assert example.answer == names[places.index(min(places))]


def test_the_rows_or_columns_are_put_side_by_side(mine, match_phrasing):
    for example in mine:
        word, names, _ = asked_about(example, match_phrasing)
        measure = "Row" if word in ("topmost", "bottommost", "above", "below") else "Column"
        cells = {thing["name"]: thing["cell"] for thing in example.provenance["objects"]}
        values = [cells[name][measure == "Column"] + 1 for name in names]
        listed = ", ".join(f"{n}: {v}" for n, v in zip(names, values, strict=True))
        assert example.conclusion.startswith(f"{measure} of {listed}. ")


def test_both_answers_are_equally_likely(mine):
    said = [example.answer for example in mine if example.answer in ("yes", "no")]
    assert len(said) > 40
    assert 0.3 < said.count("yes") / len(said) < 0.7


def test_every_phrasing_and_every_word_occurs(mine, match_phrasing):
    assert len(set(EXTREME)) >= 5 and len(set(RELATION)) >= 5
    asked = [asked_about(example, match_phrasing) for example in mine]
    assert {phrasing for _, _, phrasing in asked} == {*EXTREME, *RELATION}
    assert {word for word, _, _ in asked} == set(ORDER)
