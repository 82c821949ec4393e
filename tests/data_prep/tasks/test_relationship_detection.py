import pytest

from pixelis.data_prep.tasks.relationship_detection import COMMON, COVER, DIRECTION, direction


@pytest.fixture(scope="module")
def mine(understood):
    return understood("relationship_detection")


def of_form(mine, form):
    found = [(example, asked) for example, asked in mine if asked.form == form]
    assert len(found) > 40
    return found


def right_steps(example):
    return [step for step in example.trajectory if step.supervised]


def test_the_answer_is_the_truth_of_the_scene(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_a_direction_follows_from_the_boxes(mine):
    for example, _ in of_form(mine, "direction"):
        (ax, ay), (bx, by) = (
            (box[0] + box[2], box[1] + box[3])
            for box in (step.result["bbox"] for step in right_steps(example))
        )
        across, down = abs(ax - bx), abs(ay - by)
        assert {
            "left of": ax < bx and across >= 2 * down,
            "right of": ax > bx and across >= 2 * down,
            "above": ay < by and down >= 2 * across,
            "below": ay > by and down >= 2 * across,
        }[example.answer]


def test_a_direction_puts_rows_or_columns_side_by_side(mine):
    for example, asked in of_form(mine, "direction"):
        across = example.answer in ("left of", "right of")
        first, second = asked.instances
        a, b = first["cell"][across] + 1, second["cell"][across] + 1
        assert a < b if example.answer in ("left of", "above") else a > b
        assert example.conclusion == (
            f"{'Column' if across else 'Row'} of {first['name']}: {a}, {second['name']}: {b}. "
            f"The {first['name']} is {example.answer} the {second['name']}."
        )


def test_what_is_common_follows_from_the_properties(mine):
    for example, asked in of_form(mine, "common"):
        steps = right_steps(example)
        assert {step.operation for step in steps} == {"GET_PROPERTIES"}
        first, second = (step.result for step in steps)
        for found, thing in zip((first, second), asked.instances, strict=True):
            colour, shape = thing["name"].split()
            assert found["color"] == colour
            # Two that overlap may be taken for one of another shape; the answer stands still.
            overlapping = any("occluded" in other for other in example.provenance["objects"])
            assert found["shape"] == shape or overlapping
        same = [word for word in ("color", "shape") if first[word] == second[word]]
        assert example.answer == (same[0] if same else "nothing")
        said = "Nothing" if not same else f"The {same[0]}"
        assert example.conclusion.endswith(f"{said} is the same.")


def test_what_is_in_front_is_what_is_found_where_the_two_meet(mine):
    for example, asked in of_form(mine, "cover"):
        first, second, meeting = (step.result for step in right_steps(example))
        assert [first["bbox"], second["bbox"]] == [thing["box"] for thing in asked.instances]
        assert first["bbox"] != second["bbox"]
        found = asked.instances[0 if meeting == first else 1]
        assert meeting == (first if found is asked.instances[0] else second)
        assert example.answer == found["name"]


def test_the_one_in_front_is_named_first_half_of_the_time(mine):
    covers = of_form(mine, "cover")
    first = sum(asked.instances[0]["name"] == example.answer for example, asked in covers)
    assert 0.3 < first / len(covers) < 0.7


@pytest.mark.parametrize("phrasings", [DIRECTION, COMMON, COVER])
def test_every_phrasing_occurs(mine, phrasings):
    assert len(set(phrasings)) >= 5
    assert {asked.phrasing for _, asked in mine} >= set(phrasings)


def test_every_kind_of_answer_occurs(mine):
    directions = {example.answer for example, _ in of_form(mine, "direction")}
    assert directions == {"left of", "right of", "above", "below"}
    common = [example.answer for example, _ in of_form(mine, "common")]
    assert set(common) == {"color", "shape", "nothing"}
    assert common.count("nothing") < 0.7 * len(common)


@pytest.mark.parametrize(
    ("dx", "dy", "expected"),
    [
        (30, 0, "right of"),
        (-30, 15, "left of"),
        (3, 30, "below"),
        (0, -14, "above"),
        (0, -13.5, ""),
        (30, 15.5, ""),
        (-20, 20, ""),
        (0, 0, ""),
    ],
)
def test_a_direction_needs_distance_and_one_axis(dx, dy, expected):
    assert direction(dx, dy, 14) == expected
