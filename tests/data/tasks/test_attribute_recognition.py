import pytest

from pixelis.data.tasks.attribute_recognition import (
    BY_NEIGHBOUR,
    BY_PLACE,
    BY_SHAPE,
    RELATIONS,
)


@pytest.fixture(scope="module")
def mine(examples):
    return [example for example in examples if example.task == "attribute_recognition"]


def asked_about(example, match_phrasing):
    """The asked property and the thing in question, by the words and the scene's truth alone."""
    things = example.provenance["objects"]
    at = {tuple(thing["cell"]): thing for thing in things}
    if (found := match_phrasing(example.question, BY_NEIGHBOUR))[0]:
        gaps = found[1]
        (anchor,) = [thing for thing in things if thing["name"] == gaps["anchor"]]
        down, right = RELATIONS[gaps["relation"]]
        row, col = anchor["cell"]
        return gaps["asked"], at[row + down, col + right], found[0]
    if (found := match_phrasing(example.question, BY_PLACE))[0]:
        _, row, _, col = found[1]["place"].split()
        return found[1]["asked"], at[int(row) - 1, int(col) - 1], found[0]
    phrasing, gaps = match_phrasing(example.question, BY_SHAPE)
    (thing,) = [t for t in things if t["name"].endswith(f" {gaps['known']}")]
    return "color", thing, phrasing


def test_the_answer_is_the_truth_of_the_scene(mine, match_phrasing):
    for example in mine:
        asked, thing, _ = asked_about(example, match_phrasing)
        colour, shape = thing["name"].split()
        assert example.answer == {"color": colour, "shape": shape}[asked]


def test_the_answer_follows_from_the_last_result(mine, match_phrasing):
    for example in mine:
        asked, _, _ = asked_about(example, match_phrasing)
        assert example.trajectory[-1].operation == "GET_PROPERTIES"
        assert example.trajectory[-1].result[asked] == example.answer


def test_small_things_are_looked_at_closely_first(mine, match_phrasing):
    for example in mine:
        _, thing, _ = asked_about(example, match_phrasing)
        used = [step.operation for step in example.trajectory]
        assert ("ZOOM_IN" in used) == (thing["size"] == "small")


@pytest.mark.parametrize("phrasings", [BY_SHAPE, BY_PLACE, BY_NEIGHBOUR])
def test_every_phrasing_occurs(mine, match_phrasing, phrasings):
    assert len(set(phrasings)) >= 5
    assert {asked_about(example, match_phrasing)[2] for example in mine} >= set(phrasings)
