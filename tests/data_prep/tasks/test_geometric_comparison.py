import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data_prep.scenes import RADII
from pixelis.data_prep.tasks.geometric_comparison import MIN_RATIO, PHRASINGS
from pixelis.operations.pixels import draw_shape


@pytest.fixture(scope="module")
def mine(understood):
    return understood("geometric_comparison")


def whole_area(thing):
    """Its pixels with what is covered; only large shapes cover each other."""
    if "occluded" not in thing:
        return thing["area"]
    canvas = Image.new("L", (40, 40), 0)
    shape = thing["name"].split()[1]
    draw_shape(ImageDraw.Draw(canvas), shape, 20, 20, RADII["large"], 1)
    return int(np.asarray(canvas).sum())


def test_the_answer_is_the_truth_of_the_scene(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_nothing_that_is_partly_covered_is_called_smaller_than_what_is_really_smaller(mine):
    for example, asked in mine:
        areas = {thing["name"]: whole_area(thing) for thing in asked.instances}
        pick = {"largest": max, "smallest": min}[asked.gaps["word"]]
        assert areas[example.answer] == pick(areas.values())


def test_the_answer_follows_from_the_areas_by_a_clear_margin(mine):
    for example, asked in mine:
        areas = [step.result["area"] for step in example.trajectory if step.supervised]
        assert areas == [thing["area"] for thing in asked.instances]
        pick = {"largest": max, "smallest": min}[asked.gaps["word"]]
        best = areas.index(pick(areas))
        assert asked.instances[best]["name"] == example.answer
        for other in areas[:best] + areas[best + 1 :]:
            assert max(other, areas[best]) >= MIN_RATIO * min(other, areas[best])


def test_the_areas_that_were_measured_are_put_side_by_side(mine):
    for example, asked in mine:
        areas = [step.result["area"] for step in example.trajectory if step.supervised]
        listed = ", ".join(f"{t['name']}: {a}" for t, a in zip(asked.instances, areas, strict=True))
        assert example.conclusion.startswith(f"Area of {listed}. The {example.answer} is the ")


def test_every_phrasing_word_and_number_of_things_occurs(mine):
    assert len(set(PHRASINGS)) >= 5
    assert {asked.phrasing for _, asked in mine} == set(PHRASINGS)
    assert {asked.gaps["word"] for _, asked in mine} == {"largest", "smallest"}
    assert {len(asked.instances) for _, asked in mine} == {2, 3, 4}


def test_covered_things_are_compared_too(mine):
    assert any("occluded" in thing for _, asked in mine for thing in asked.instances)


def test_the_winner_s_place_in_the_question_is_no_hint(mine):
    places = [
        [thing["name"] for thing in asked.instances].index(example.answer)
        for example, asked in mine
    ]
    assert set(places) == {0, 1, 2, 3}
    assert 0.25 < places.count(0) / len(places) < 0.55
