import random

import pytest

from pixelis.data.scenes import Item
from pixelis.data.tasks import text_extraction
from pixelis.data.tasks.attribute_recognition import RELATIONS
from pixelis.data.tasks.text_extraction import ALL, BESIDE, SINGLE


@pytest.fixture(scope="module")
def mine(examples):
    return [example for example in examples if example.task == "text_extraction"]


def truth(example, match_phrasing):
    """The asked text, by the words and the scene's truth alone, and the phrasing."""
    things = example.provenance["objects"]
    texts = {tuple(thing["cell"]): thing["text"] for thing in things if thing["text"]}
    phrasing, gaps = match_phrasing(example.question, BESIDE)
    if phrasing:
        (anchor,) = [thing for thing in things if thing["name"] == gaps["anchor"]]
        down, right = RELATIONS[gaps["relation"]]
        row, col = anchor["cell"]
        return texts[row + down, col + right], phrasing
    phrasing, _ = match_phrasing(example.question, SINGLE + ALL)
    assert (len(texts) == 1) == (phrasing in SINGLE)
    return " ".join(texts[cell] for cell in sorted(texts)), phrasing


def test_the_answer_is_the_truth_of_the_scene(mine, match_phrasing):
    for example in mine:
        assert example.answer == truth(example, match_phrasing)[0]


def test_the_answer_follows_from_what_was_read(mine):
    for example in mine:
        results = [step.result for step in example.trajectory]
        read = [result["text"] for result in results if "text" in result]
        assert example.answer == " ".join(read)


def test_every_phrasing_occurs(mine, match_phrasing):
    for phrasings in (SINGLE, BESIDE, ALL):
        assert len(set(phrasings)) >= 5
    assert {truth(example, match_phrasing)[1] for example in mine} == {*SINGLE, *BESIDE, *ALL}


def test_the_one_beside_is_looked_at_closely(mine, match_phrasing):
    for example in mine:
        beside = truth(example, match_phrasing)[1] in BESIDE
        used = [step.operation for step in example.trajectory if step.supervised]
        if beside:
            assert used == ["SEGMENT_OBJECT_AT", "ZOOM_IN", "READ_TEXT"]
        else:
            assert set(used) == {"READ_TEXT"}


def test_a_text_without_a_wrong_reading_proposes_none(monkeypatch):
    # Reversed, exchanged or changed at the end, such a text would be itself.
    monkeypatch.setattr(text_extraction, "random_text", lambda rng, cell: Item(cell, text="AA"))
    drafts = [text_extraction.build(random.Random(seed)) for seed in range(40)]
    answers = {draft.answer: draft.wrong_answers for draft in drafts}
    assert answers["AA"] == ()
