"""Cases: one example with the adapter's and the base's rollout, a verdict and a reason.

Cases are sorted worst first: those where only the base is right, then other wrong ones. Within
each, cases without an answer come first, then those with the lowest score.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.data.example import Example
from pixelis.data_prep.regions import Region, box_iou, find_regions
from pixelis.evaluation.cards import shorten
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.matching import IOU_THRESHOLD, answers_match, score_answer
from pixelis.evaluation.turns import MAX_OPERATIONS, Rollout

LOST, WRONG, GAINED, RIGHT = VERDICTS = ("lost", "wrong", "gained", "right")
MEANINGS = {
    LOST: "the adapter is wrong where the base is right",
    WRONG: "the adapter is wrong",
    GAINED: "the adapter is right where the base is wrong",
    RIGHT: "the adapter is right",
}
# Number of right cases among ten that are shown, if there are enough.
RIGHT_IN_TEN = 2


@dataclass(frozen=True)
class Case:
    """One example with the rollouts of adapter and base, and the verdict, a key of `MEANINGS`.

    `why` says why the adapter's answer is wrong; it is empty if the answer is right.
    """

    example: Example
    rollout: Rollout
    base: Rollout | None
    verdict: str
    why: str

    @property
    def is_right(self) -> bool:
        """Whether the adapter's answer is right."""
        return self.verdict in (GAINED, RIGHT)


def build_cases(result: EvaluationResult) -> list[Case]:
    """Return one case per example, in the examples' order."""
    rollouts = result.adapter.rollouts
    bases = result.base.rollouts if result.base is not None else [None] * len(rollouts)
    cases = []
    for example, rollout, base in zip(result.examples, rollouts, bases, strict=True):
        is_right = answers_match(rollout.answer, example)
        base_is_right = answers_match(base.answer, example) if base else None
        why = "" if is_right else explain(rollout, example)
        cases.append(Case(example, rollout, base, verdict_of(is_right, base_is_right), why))
    return cases


def choose_example(cases: Sequence[Case]) -> Example | None:
    """Return the example that shows how the adapter is called: answered right, the shortest.

    It has one image and no solution to judge. One where the adapter looks before it answers comes
    first. None if there is no such example.
    """
    fit = [
        case
        for case in cases
        if case.is_right
        and len(case.example.images) == 1
        and "flawed" not in case.example.provenance
    ]
    right = min(fit, key=lambda c: (not c.rollout.operations, len(c.rollout.turns)), default=None)
    return right.example if right else None


def verdict_of(is_right: bool, base_is_right: bool | None) -> str:
    """Return the verdict of a rollout, compared with the base's from the same start if given."""
    if is_right:
        return GAINED if base_is_right is False else RIGHT
    return LOST if base_is_right else WRONG


def worst_first(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """Select at most `limit` cases, worst first: lost, wrong, then a few right ones.

    Among equal cases, groups and tasks alternate, and the seed decides within a task.
    """
    seen: Counter[tuple[Any, ...]] = Counter()

    def rank(case: Case) -> tuple[Any, ...]:
        answer, example = case.rollout.answer, case.example
        worth = VERDICTS.index(case.verdict), answer is not None, score_answer(answer, example)
        # How many equal cases of its group and task come before it, so that these alternate.
        seen[worth, example.difficulty, example.task] += 1
        return *worth, seen[worth, example.difficulty, example.task]

    ranked = sorted(random.Random(f"cases:{seed}").sample(cases, len(cases)), key=rank)
    wrong = [case for case in ranked if not case.is_right]
    right = [case for case in ranked if case.is_right]
    num_right = min(len(right), max(limit * RIGHT_IN_TEN // 10, limit - len(wrong)))
    return [*wrong[: limit - num_right], *right[:num_right]]


def spread_evenly(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """Select at most `limit` cases: verdicts alternate, and difficulties within each verdict.

    The seed decides among equal cases. A share of right answers among these cases says nothing
    about the accuracy.
    """
    mixed = random.Random(f"traces:{seed}").sample(cases, len(cases))
    by_difficulty = _alternate(mixed, lambda case: (case.verdict, case.example.difficulty))
    return _alternate(by_difficulty, lambda case: case.verdict)[:limit]


def _alternate(cases: Sequence[Case], group: Callable[[Case], Hashable]) -> list[Case]:
    """Sort cases so that the first of every group comes first, then the second of every group."""
    seen: Counter[Hashable] = Counter()

    def rank(case: Case) -> int:
        seen[group(case)] += 1
        return seen[group(case)]

    return sorted(cases, key=rank)


def explain(rollout: Rollout, example: Example) -> str:
    """Return one or two sentences about a wrong or missing answer, from what can be observed."""
    if rollout.outcome == MAX_OPERATIONS:
        ending = f"Still calling after {rollout.num_operations} operations, it never answered."
    elif rollout.answer is None:
        last = rollout.turns[-1]
        ending = "Its last turn was neither a call nor an answer."
        if not last.ended:
            ending = f"Cut off after {last.num_new_tokens} tokens of one turn, it never answered."
    else:
        answer, truth = shorten(rollout.answer), shorten(example.ground_truth)
        ending = f"It answered “{answer}”, the truth is “{truth}”."
    return f"{ending} {_cause(rollout, example)}".strip()


def _cause(rollout: Rollout, example: Example) -> str:
    if rollout.num_repeated >= 2:
        return f"It made a call again that it had made already, {rollout.num_repeated} times."
    if rollout.answer is None:
        return ""
    if not rollout.num_operations:
        return "It answered without looking: no operation was run."
    truth = example.ground_truth.strip().casefold()
    for number, turn in enumerate(rollout.turns, 1):
        if truth in [str(value).strip().casefold() for value in (turn.result or {}).values()]:
            return f"What it was shown in turn {number} holds the truth, but it answered otherwise."
    if rollout.num_failed == rollout.num_operations:
        error = (rollout.operations[-1].result or {})["error"]
        return f"Every operation failed, the last one with: {shorten(error)}."
    seen = [box for turn in rollout.operations for box in _boxes(turn.arguments, turn.result)]
    expected = [_boxes(step.arguments, step.result) for step in example.trajectory]
    missed = [
        f"R{number}"
        for number, boxes in enumerate(expected, 1)
        if any(all(box_iou(box, other) < IOU_THRESHOLD for other in seen) for box in boxes)
    ]
    if missed:
        return f"It did not look at {', '.join(missed)} of the reference."
    if any(expected):
        return "It looked at all that the reference looks at; what it made of it is wrong."
    return ""


def _boxes(arguments: Any, result: Mapping[str, Any] | None) -> list[Region]:
    """Return the boxes of a call in the first image, from its arguments or else its result."""
    regions = find_regions(arguments, result, 1)
    if any(len(region) == 2 for region in regions):  # a point: the object at it
        regions = find_regions(result, None, 1)
    return [region for region in regions if len(region) == 4]
