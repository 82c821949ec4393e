import re

import pytest

from pixelis.data.tasks.geometric_comparison import MIN_RATIO, PHRASINGS

SIZES = ("small", "medium", "large")


@pytest.fixture(scope="module")
def mine(examples):
    return [example for example in examples if example.task == "geometric_comparison"]


def asked_about(example, match_phrasing):
    """The asked word, and the things named in the question in their order."""
    _, gaps = match_phrasing(example.question, PHRASINGS)
    names = re.split(", the | or the ", gaps["names"].removeprefix("the "))
    by_name = {thing["name"]: thing for thing in example.provenance["objects"]}
    return gaps["word"], [by_name[name] for name in names]


def test_the_answer_is_the_truth_of_the_scene(mine, match_phrasing):
    for example in mine:
        word, things = asked_about(example, match_phrasing)
        pick = {"largest": max, "smallest": min}[word]
        ranks = [SIZES.index(thing["size"]) for thing in things]
        assert ranks.count(pick(ranks)) == 1
        assert things[ranks.index(pick(ranks))]["name"] == example.answer


def test_the_answer_follows_from_the_areas_by_a_clear_margin(mine, match_phrasing):
    for example in mine:
        word, things = asked_about(example, match_phrasing)
        areas = [step.result["area"] for step in example.trajectory if step.supervised]
        assert len(areas) == len(things)
        pick = {"largest": max, "smallest": min}[word]
        best = areas.index(pick(areas))
        assert things[best]["name"] == example.answer
        for other in areas[:best] + areas[best + 1 :]:
            assert max(other, areas[best]) >= MIN_RATIO * min(other, areas[best])


def test_the_areas_that_were_measured_are_put_side_by_side(mine, match_phrasing):
    for example in mine:
        _, things = asked_about(example, match_phrasing)
        areas = [step.result["area"] for step in example.trajectory if step.supervised]
        listed = ", ".join(f"{t['name']}: {a}" for t, a in zip(things, areas, strict=True))
        assert example.conclusion.startswith(f"Area of {listed}. The {example.answer} is the ")


def test_every_phrasing_word_and_number_of_things_occurs(mine, match_phrasing):
    assert len(set(PHRASINGS)) >= 5
    assert {match_phrasing(e.question, PHRASINGS)[0] for e in mine} == set(PHRASINGS)
    asked = [asked_about(example, match_phrasing) for example in mine]
    assert {word for word, _ in asked} == {"largest", "smallest"}
    assert {len(things) for _, things in asked} == {2, 3, 4}


def test_the_winner_s_place_in_the_question_is_no_hint(mine, match_phrasing):
    places = [
        [thing["name"] for thing in asked_about(example, match_phrasing)[1]].index(example.answer)
        for example in mine
    ]
    assert set(places) == {0, 1, 2, 3}
    assert 0.25 < places.count(0) / len(places) < 0.55
