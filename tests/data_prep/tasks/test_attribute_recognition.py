import pytest

from pixelis.data_prep.tasks.attribute_recognition import BY_KIND, BY_NEIGHBOUR, BY_PLACE

# Pixels of a small shape: none has more, and no medium one has fewer.
SMALL = {"circle": 97, "square": 121, "triangle": 61, "diamond": 61, "cross": 72}


@pytest.fixture(scope="module")
def mine(understood):
    return understood("attribute_recognition")


def test_the_answer_is_the_truth_of_the_scene(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_the_answer_follows_from_the_last_result(mine):
    for example, asked in mine:
        last = example.trajectory[-1]
        assert last.operation == "GET_PROPERTIES"
        assert last.result[asked.gaps.get("asked", "color")] == example.answer
        row, column = asked.instances[0]["cell"]
        assert last.arguments["bbox"][:2] == [28 * column, 28 * row]


def test_small_things_are_looked_at_closely_first(mine):
    for example, asked in mine:
        (thing,) = asked.instances
        used = [step.operation for step in example.trajectory]
        assert ("ZOOM_IN" in used) == (thing["area"] == SMALL[thing["name"].split()[1]])


def test_a_neighbour_is_found_by_its_anchor_first(mine):
    for example, asked in mine:
        used = [step.operation for step in example.trajectory if step.supervised]
        assert ("SEGMENT_OBJECT_AT" in used) == (asked.form == "neighbour")
        if asked.form == "neighbour":
            assert used[0] == "SEGMENT_OBJECT_AT"
            assert f"The {asked.gaps['anchor']} is in " in example.trajectory[0].thought


@pytest.mark.parametrize("phrasings", [BY_KIND, BY_PLACE, BY_NEIGHBOUR])
def test_every_phrasing_occurs(mine, phrasings):
    assert len(set(phrasings)) >= 5
    assert {asked.phrasing for _, asked in mine} >= set(phrasings)


def test_colours_and_shapes_are_asked_for_of_covered_things_too(mine):
    assert {asked.gaps.get("asked", "color") for _, asked in mine} == {"color", "shape"}
    assert any("occluded" in asked.instances[0] for _, asked in mine)
