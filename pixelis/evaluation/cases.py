"""What one example came to: the adapter's rollout, the base's, and which of them is right.

Worst first: what the base answers and the adapter does not, then the rest of the wrong ones; within
each, no answer before any, then by how near the answer comes.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pixelis.data.example import Example
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.matching import score_answer
from pixelis.evaluation.metrics import correct_answers
from pixelis.evaluation.reasons import explain
from pixelis.evaluation.turns import Rollout

LOST, WRONG, GAINED, RIGHT = VERDICTS = ("lost", "wrong", "gained", "right")
MEANINGS = {
    LOST: "the adapter is wrong where the base is right",
    WRONG: "the adapter is wrong",
    GAINED: "the adapter is right where the base is wrong",
    RIGHT: "the adapter is right",
}
# Of those that are shown, so many in ten are right ones, if there are as many.
RIGHT_IN_TEN = 2


@dataclass(frozen=True)
class Case:
    """One example with what was done with it.

    Attributes:
        example: with question, images and truth.
        rollout: the adapter's.
        base: the base's, where it was rolled out.
        verdict: a key of `MEANINGS`.
        why: why the adapter's answer is wrong, in a sentence; empty where it is right.
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

    @property
    def worth(self) -> tuple[bool, float]:
        """What cases of one verdict are ordered by: whether there is an answer, and its score."""
        answer = self.rollout.answer
        return answer is not None, score_answer(answer, self.example)


def build_cases(result: EvaluationResult) -> list[Case]:
    """One case an example, in the examples' order."""
    right = correct_answers(result.adapter.rollouts, result.examples)
    base_right: Sequence[bool | None] = [None] * len(right)
    bases: Sequence[Rollout | None] = [None] * len(right)
    if result.base is not None:
        bases = result.base.rollouts
        base_right = correct_answers(result.base.rollouts, result.examples)
    return [
        Case(
            example=example,
            rollout=rollout,
            base=base,
            verdict=verdict_of(bool(is_right), base_is_right),
            why="" if is_right else explain(rollout, example),
        )
        for example, rollout, base, is_right, base_is_right in zip(
            result.examples, result.adapter.rollouts, bases, right, base_right, strict=True
        )
    ]


def verdict_of(is_right: bool, base_is_right: bool | None) -> str:
    """The verdict of a rollout beside what the base came to from the same start, if it did."""
    if is_right:
        return GAINED if base_is_right is False else RIGHT
    return LOST if base_is_right else WRONG


def worst_first(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """At most `limit` cases: lost, wrong, then a few right ones, each from the worst.

    Of a verdict those without an answer come first, then the lowest `matching.score_answer`; among
    equals groups and tasks take turns.

    Args:
        cases: of `build_cases`.
        limit: how many.
        seed: of the choice among equal cases of one verdict, group and task.
    """
    ranked = {verdict: _in_turn(cases, verdict, seed) for verdict in VERDICTS}
    wrong, right = ranked[LOST] + ranked[WRONG], ranked[GAINED] + ranked[RIGHT]
    num_right = min(len(right), max(limit * RIGHT_IN_TEN // 10, limit - len(wrong)))
    return [*wrong[: limit - num_right], *right[:num_right]]


def _in_turn(cases: Sequence[Case], verdict: str, seed: int) -> list[Case]:
    """The cases of a verdict, worst first; of equals each group's and task's first, second, ..."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if case.verdict == verdict:
            key = case.example.difficulty, case.example.task
            groups.setdefault(key, []).append(case)
    for key, members in groups.items():
        random.Random(f"cases:{seed}:{verdict}:{key}").shuffle(members)
    ranks = []
    for members in groups.values():
        seen: Counter[tuple[bool, float]] = Counter()
        for case in members:
            worth = case.worth
            ranks.append((worth, seen[worth], case))
            seen[worth] += 1
    return [case for _, _, case in sorted(ranks, key=lambda item: item[:2])]
