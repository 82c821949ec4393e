import random
import re

import pytest

from recipes.nano.text_lessons import (
    NUM_PAIRS,
    NUM_TURNS,
    build_recall,
    build_repeat,
    build_turns,
)


def many(build, count=300):
    return [build(random.Random(seed)) for seed in range(count)]


def test_what_is_to_be_repeated_is_repeated():
    for question, answer in many(build_repeat):
        assert question == f"Repeat {answer}."
    assert {answer.count(",") + 1 for _, answer in many(build_repeat)} == set(range(2, 8))


def test_pairs_are_recalled_as_they_were_given_in_both_directions():
    directions = set()
    for question, answer in many(build_recall):
        given, asked = re.fullmatch(r"Given (.*), match (.*)\.", question).groups()
        pairs = dict(pair.split(": ") for pair in given.split(", "))
        assert len(pairs) == len(set(pairs.values())) <= NUM_PAIRS[1]
        said = [pair.split(": ") for pair in answer.split(", ")]
        assert [key for key, _ in said] == asked.split(", ")
        for key, value in said:
            directions.add(key in pairs)
            assert pairs.get(key) == value or pairs[value] == key
    assert directions == {True, False}


@pytest.mark.parametrize("seed", range(20))
def test_turns_are_a_function_of_their_generator_and_may_end_with_the_first(seed):
    turns = build_turns(random.Random(seed))
    assert build_turns(random.Random(seed)) == turns
    assert len(turns) in (NUM_TURNS, NUM_TURNS + 1)
    if len(turns) > NUM_TURNS:
        assert turns[-1] == ("What was the first question?", turns[0][0])
