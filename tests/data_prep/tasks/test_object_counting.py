import pytest

from pixelis.data_prep.tasks.object_counting import MAX_COUNT, PHRASINGS


@pytest.fixture(scope="module")
def mine(understood):
    return understood("object_counting")


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("red objects", "red cross", True),
        ("red objects", "blue cross", False),
        ("crosses", "red cross", True),
        ("squares", "red square", True),
        ("circles", "red square", False),
        ("red objects", "text", False),
    ],
)
def test_the_oracle_of_counting(oracles, kind, name, expected):
    assert oracles.fits(kind, name) == expected


def test_the_answer_is_how_many_there_are(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_the_answer_follows_from_the_results(mine):
    for example, asked in mine:
        found = [step.result for step in example.trajectory if "error" not in step.result]
        assert len({tuple(result["bbox"]) for result in found}) == int(example.answer)
        assert {step.operation for step in example.trajectory} == {"SEGMENT_OBJECT_AT"}
        things = sorted((thing["box"], thing["area"]) for thing in asked.instances)
        assert sorted((result["bbox"], result["area"]) for result in found) == things


def test_every_count_and_every_phrasing_occurs(mine):
    counts = {example.answer for example, _ in mine}
    assert counts == {str(count) for count in range(1, MAX_COUNT + 1)}
    assert len(set(PHRASINGS)) >= 5
    assert {asked.phrasing for _, asked in mine} == set(PHRASINGS)


def test_colours_and_shapes_are_counted(mine):
    kinds = {asked.gaps["kind"] for _, asked in mine}
    assert {"red objects", "blue objects", "circles", "squares", "crosses"} <= kinds


def test_things_are_counted_aloud_in_order(mine):
    for example, _ in mine:
        if example.sample_type == "positive":
            for number, step in enumerate(example.trajectory, 1):
                assert step.thought.startswith(f"Number {number}: ")
