import pytest

from pixelis.data_prep.tasks.spatial_reasoning import EXTREME, RELATION


@pytest.fixture(scope="module")
def mine(understood):
    return understood("spatial_reasoning")


def word_of(asked):
    return asked.gaps["relation" if asked.form == "relation" else "word"]


def test_the_answer_is_the_truth_of_the_scene(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_the_answer_follows_from_the_boxes(mine, oracles):
    for example, asked in mine:
        boxes = [step.result["bbox"] for step in example.trajectory if step.supervised]
        assert boxes == [thing["box"] for thing in asked.instances]
        middles = [((box[1] + box[3]) / 2, (box[0] + box[2]) / 2) for box in boxes]
        places = [oracles.ORDER[word_of(asked)](middle) for middle in middles]
        if asked.form == "relation":
            assert example.answer == ("yes" if places[0] < places[1] else "no")
        else:
            assert example.answer == asked.instances[places.index(min(places))]["name"]


def test_what_is_told_apart_lies_clearly_apart(mine, oracles):
    for example, asked in mine:
        boxes = [step.result["bbox"] for step in example.trajectory if step.supervised]
        middles = [((box[1] + box[3]) / 2, (box[0] + box[2]) / 2) for box in boxes]
        first, second = sorted(oracles.ORDER[word_of(asked)](middle) for middle in middles)[:2]
        assert second - first >= 14


def test_the_rows_or_columns_are_put_side_by_side(mine):
    for example, asked in mine:
        across = word_of(asked) not in ("topmost", "bottommost", "above", "below")
        measure = "Column" if across else "Row"
        values = {thing["name"]: thing["cell"][across] + 1 for thing in asked.instances}
        listed = ", ".join(f"{name}: {value}" for name, value in values.items())
        assert example.conclusion.startswith(f"{measure} of {listed}. ")


def test_both_answers_are_equally_likely(mine):
    said = [example.answer for example, asked in mine if asked.form == "relation"]
    assert len(said) > 40
    assert 0.3 < said.count("yes") / len(said) < 0.7


def test_every_phrasing_and_every_word_occurs(mine, oracles):
    assert len(set(EXTREME)) >= 5 and len(set(RELATION)) >= 5
    assert {asked.phrasing for _, asked in mine} == {*EXTREME, *RELATION}
    assert {word_of(asked) for _, asked in mine} == set(oracles.ORDER)
    assert {len(asked.instances) for _, asked in mine} == {2, 3, 4}
