import pytest

from pixelis.data.tasks.object_counting import MAX_COUNT, PHRASINGS


@pytest.fixture(scope="module")
def mine(examples):
    return [example for example in examples if example.task == "object_counting"]


def fits(kind, name):
    """Whether a thing is of the kind that a question asks for."""
    colour, _, rest = kind.partition(" ")
    if rest == "objects":
        return name.startswith(f"{colour} ")
    return name.endswith(f" {'cross' if kind == 'crosses' else kind.removesuffix('s')}")


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
def test_the_oracle_of_this_file(kind, name, expected):
    assert fits(kind, name) == expected


def test_the_answer_is_how_many_there_are(mine, match_phrasing):
    for example in mine:
        _, gaps = match_phrasing(example.question, PHRASINGS)
        things = example.provenance["objects"]
        count = sum(fits(gaps["kind"], thing["name"]) for thing in things)
        assert example.answer == str(count)


def test_the_answer_follows_from_the_results(mine):
    for example in mine:
        found = [step.result for step in example.trajectory if "error" not in step.result]
        assert len({tuple(result["bbox"]) for result in found}) == int(example.answer)
        assert {step.operation for step in example.trajectory} == {"SEGMENT_OBJECT_AT"}


def test_every_count_and_every_phrasing_occurs(mine, match_phrasing):
    assert {example.answer for example in mine} == {str(n) for n in range(1, MAX_COUNT + 1)}
    assert len(set(PHRASINGS)) >= 5
    assert {match_phrasing(e.question, PHRASINGS)[0] for e in mine} == set(PHRASINGS)


def test_things_are_counted_aloud_in_order(mine):
    for example in mine:
        if example.sample_type == "positive":
            for number, step in enumerate(example.trajectory, 1):
                assert step.thought.startswith(f"Number {number}: ")
