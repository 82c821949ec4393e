import random

import pytest

from pixelis.data_prep.scenes import CELLS, Item, Scene
from pixelis.data_prep.sources.drawn import to_picture
from pixelis.data_prep.tasks import text_extraction
from pixelis.data_prep.tasks.text_extraction import ALL, BESIDE, SINGLE


@pytest.fixture(scope="module")
def mine(understood):
    return understood("text_extraction")


def test_the_answer_is_the_truth_of_the_scene(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_the_answer_follows_from_what_was_read(mine):
    for example, _ in mine:
        results = [step.result for step in example.trajectory]
        read = [result["text"] for result in results if "text" in result]
        assert example.answer == " ".join(read)


def test_every_phrasing_occurs_of_texts_and_of_digits(mine):
    for phrasings in (SINGLE, BESIDE, ALL):
        assert len(set(phrasings)) >= 5
    assert {asked.phrasing for _, asked in mine} == {*SINGLE, *BESIDE, *ALL}
    for form in ("single", "beside", "all"):
        words = {asked.gaps["word"] for _, asked in mine if asked.form == form}
        assert words == {"text", "digit"}


def test_digits_are_digits_and_texts_two_characters(mine):
    for _, asked in mine:
        for thing in asked.instances:
            if thing["name"] == "digit":
                assert thing["text"] in list("0123456789")
            else:
                assert len(thing["text"]) == 2


def test_the_one_beside_is_looked_at_closely(mine):
    for example, asked in mine:
        used = [step.operation for step in example.trajectory if step.supervised]
        if asked.form == "beside":
            assert used == ["SEGMENT_OBJECT_AT", "ZOOM_IN", "READ_TEXT"]
        else:
            assert set(used) == {"READ_TEXT"}


def test_all_are_read_in_reading_order(mine):
    for example, asked in mine:
        if asked.form == "all" and example.sample_type == "positive":
            looked = [tuple(step.arguments["bbox"]) for step in example.trajectory]
            cells = [(y // 28, x // 28) for x, y, _, _ in looked]
            assert cells == sorted(cells) == [tuple(thing["cell"]) for thing in asked.instances]


@pytest.mark.parametrize("text", ["AA", "7", "A7"])
def test_wrong_readings_are_wrong_and_not_empty(text):
    picture = to_picture(Scene((Item((1, 1), text=text),), 3))
    for seed in range(40):
        draft = text_extraction.build(random.Random(seed), picture)
        if draft is not None:
            assert draft.answer == text
            assert draft.wrong_answers and not {text, ""} & set(draft.wrong_answers)
            assert all(wrong == wrong.strip() for wrong in draft.wrong_answers)


def test_a_picture_without_texts_or_without_a_neighbour_is_not_asked():
    bare = to_picture(Scene((Item((0, 0), "red", "circle"),), 3))
    lonely = to_picture(Scene((Item(CELLS[0], text="A7"), Item(CELLS[-1], "red", "cross")), 3))
    for seed in range(20):
        assert text_extraction.build(random.Random(seed), bare) is None
        draft = text_extraction.build(random.Random(seed), lonely)
        assert draft is None or "beside" not in draft.question and len(draft.calls) == 1
