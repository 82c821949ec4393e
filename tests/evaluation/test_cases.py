from collections import Counter
from dataclasses import replace

import pytest

from pixelis.evaluation.cases import (
    GAINED,
    LOST,
    RIGHT,
    VERDICTS,
    WRONG,
    build_cases,
    choose_example,
    explain,
    spread_evenly,
    worst_first,
)
from tests.evaluation.rollouts import answer, call, example, noise, result, rollout


def make(kinds, **more):
    """An example for each pair of letters: what adapter and base answer, `y` is right."""
    examples = [example(f"e{i}", **more) for i in range(len(kinds))]
    values = {"y": "A9", "n": "B2"}
    rolled = [
        [rollout(answer(values[kind[k]]), example_id=f"e{i}") for i, kind in enumerate(kinds)]
        for k in (0, 1)
    ]
    return examples, rolled


def test_verdicts_of_adapter_and_base():
    examples, (mine, base) = make(["ny", "nn", "yn", "yy"])
    cases = build_cases(result(examples, mine, base))
    assert [case.verdict for case in cases] == [LOST, WRONG, GAINED, RIGHT] == list(VERDICTS)
    assert [bool(case.why) for case in cases] == [True, True, False, False]
    alone = build_cases(result(examples, mine))
    assert [case.verdict for case in alone] == [WRONG, WRONG, RIGHT, RIGHT]


def test_the_example_of_a_model_is_right_and_short_and_one_that_it_looked_at():
    kept = {"provenance": {"flawed": {}}}
    examples = [example(f"e{i}") for i in range(5)]
    examples += [example("judged", **kept), example("frames", images=examples[0].images * 2)]
    looked = {
        "e0": (call(), answer("B2")),  # wrong
        "e1": (answer("A9"),),  # without looking
        "e2": (call(), call(), answer("A9")),
        "e3": (call(), answer("A9")),
        "e4": (call(), answer("A9")),
        "judged": (call(), answer("A9")),
        "frames": (call(), answer("A9")),
    }
    mine = [rollout(*turns, example_id=name) for name, turns in looked.items()]
    cases = build_cases(result(examples, mine))
    assert choose_example(cases) == examples[3]
    assert choose_example(cases[:2]) == examples[1]
    assert choose_example([cases[0], *cases[5:]]) is None


MANY = ["ny"] * 5 + ["nn"] * 20 + ["yn"] * 5 + ["yy"] * 20


@pytest.mark.parametrize(
    ("kinds", "limit", "counts"),
    [
        (MANY, 10, {LOST: 5, WRONG: 3, GAINED: 2}),
        (MANY, 100, {LOST: 5, WRONG: 20, GAINED: 5, RIGHT: 20}),
        (MANY, 0, {}),
        (MANY, 3, {LOST: 3}),
        (["nn"] + ["yy"] * 20, 10, {WRONG: 1, RIGHT: 9}),
    ],
)
def test_worst_first_with_some_right_ones(kinds, limit, counts):
    examples, (mine, base) = make(kinds)
    shown = worst_first(build_cases(result(examples, mine, base)), limit, seed=1)
    assert Counter(case.verdict for case in shown) == counts
    places = [VERDICTS.index(case.verdict) for case in shown]
    assert places == sorted(places)


def test_no_answer_comes_first_then_the_lowest_score():
    values = ["A9X", None, "B2", "A9XYZ", None]  # scores 0.67, none, 0, 0, none
    examples = [example(f"e{i}", task="ab"[i % 2]) for i in range(5)]
    examples = [replace(e, provenance={"answer_type": "text"}) for e in examples]
    mine = [
        rollout(noise() if each is None else answer(each), example_id=f"e{i}")
        for i, each in enumerate(values)
    ]
    shown = worst_first(build_cases(result(examples, mine)), 5, seed=0)
    answers = [case.rollout.answer for case in shown]
    assert answers[:2] == [None, None] and answers[4] == "A9X"


def test_tasks_take_turns_and_the_seed_chooses_among_equals():
    tasks = ["a"] * 9 + ["b"] * 2 + ["c"]
    examples = [example(f"e{i}", task=task) for i, task in enumerate(tasks)]
    mine = [rollout(answer("no"), example_id=f"e{i}") for i in range(12)]
    cases = build_cases(result(examples, mine))

    def chosen(seed):
        return [case.example for case in worst_first(cases, 6, seed)]

    assert Counter(each.task for each in chosen(0)[:3]) == {"a": 1, "b": 1, "c": 1}
    assert Counter(each.task for each in chosen(0)) == {"a": 3, "b": 2, "c": 1}
    assert chosen(0) == chosen(0)
    assert len({tuple(each.id for each in chosen(seed)) for seed in range(8)}) > 1


def test_a_sample_is_even_over_verdicts_and_difficulties():
    examples, (mine, base) = make([*MANY, *MANY, *MANY])
    examples = [
        replace(e, difficulty=("simple", "medium", "hard")[i // len(MANY)])
        for i, e in enumerate(examples)
    ]
    cases = build_cases(result(examples, mine, base))

    def chosen(limit, seed=0):
        return spread_evenly(cases, limit, seed)

    pairs = Counter((case.verdict, case.example.difficulty) for case in chosen(12))
    assert len(pairs) == 12 and set(pairs.values()) == {1}
    assert Counter(case.verdict for case in chosen(4)) == dict.fromkeys(VERDICTS, 1)
    # When the lost ones are used up, the others fill their place.
    assert Counter(case.verdict for case in chosen(80)) == {
        LOST: 15, WRONG: 25, GAINED: 15, RIGHT: 25
    }  # fmt: skip
    ids = {tuple(case.example.id for case in chosen(12, seed)) for seed in (0, 0, 1, 2)}
    assert len(ids) == 3
    assert chosen(0) == []


FAR = {"bbox": [60, 50, 90, 70]}
NEAR = call("SEGMENT_OBJECT_AT", {"x": 20, "y": 20}, {"bbox": [11, 11, 30, 30]})
SAYS = "It answered “B2”, the truth is “A9”."
NEITHER = "Its last turn was neither a call nor an answer."


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([answer("B2")], f"{SAYS} It answered without looking: no operation was run."),
        ([call("READ_TEXT", FAR), answer("B2")],
         f"{SAYS} What it was shown in turn 1 holds the truth, but it answered otherwise."),
        ([call(arguments=FAR, result={"text": "B2"}), answer("B2")],
         f"{SAYS} It did not look at R1 of the reference."),
        ([call(result={"text": "B2"}), answer("B2")],
         f"{SAYS} It looked at all that the reference looks at; what it made of it is wrong."),
        # A point counts as the object at it.
        ([NEAR, answer("B2")],
         f"{SAYS} It looked at all that the reference looks at; what it made of it is wrong."),
        ([call(arguments=FAR, result={"error": "no text"}), answer("B2")],
         f"{SAYS} Every operation failed, the last one with: no text."),
        ([noise()], NEITHER),
        ([noise(), noise()], NEITHER),
        ([noise(ended=False)], "Cut off after 7 tokens of one turn, it never answered."),
        ([call(), call("ZOOM_IN", FAR)], "Still calling after 2 operations, it never answered."),
        ([call(), call(), call()],
         "Still calling after 3 operations, it never answered. "
         "It made a call again that it had made already, 2 times."),
    ],
)  # fmt: skip
def test_the_reason_of_a_wrong_or_missing_answer(turns, why):
    assert explain(rollout(*turns), example()) == why


def test_without_reference_steps_only_the_answers_are_compared():
    assert explain(rollout(call(result={"text": "B2"}), answer("B2")), example(steps=())) == SAYS


@pytest.mark.parametrize("arguments", [None, [], "x", {"bbox": [0, 0, 10**400, 1]}, {"a": {}}])
def test_any_arguments_have_a_sentence(arguments):
    odd = call("…", arguments, {"error": {"deep": [1]}})
    assert explain(rollout(odd, answer("x" * 5000)), example())
