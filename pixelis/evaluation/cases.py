"""Cases: one example with the adapter's and the base's rollout, a verdict and a reason.

Cases are sorted worst first: those where only the base is right, then other wrong ones. Within
each, cases without an answer come first, then those with the lowest score.
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
# Number of right cases among ten that are shown, if there are enough.
RIGHT_IN_TEN = 2


@dataclass(frozen=True)
class Case:
    """One example with its rollouts.

    Attributes:
        example: the example with question, images and truth.
        rollout: the adapter's rollout.
        base: the base's rollout, or None.
        verdict: a key of `MEANINGS`.
        why: the reason why the adapter's answer is wrong; empty if it is right.
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
        """The sort key within a verdict: whether there is an answer, and its score."""
        answer = self.rollout.answer
        return answer is not None, score_answer(answer, self.example)


def build_cases(result: EvaluationResult) -> list[Case]:
    """Return one case per example, in the examples' order."""
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
    """Return the verdict of a rollout, compared with the base's from the same start if given."""
    if is_right:
        return GAINED if base_is_right is False else RIGHT
    return LOST if base_is_right else WRONG


def worst_first(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """Select at most `limit` cases, worst first: lost, wrong, then a few right ones.

    Within a verdict, cases without an answer come first, then those with the lowest
    `matching.score_answer`. Among equal cases, groups and tasks alternate, and the seed decides
    within a task.
    """
    ranked = {verdict: _in_turn(cases, verdict, seed) for verdict in VERDICTS}
    wrong, right = ranked[LOST] + ranked[WRONG], ranked[GAINED] + ranked[RIGHT]
    num_right = min(len(right), max(limit * RIGHT_IN_TEN // 10, limit - len(wrong)))
    return [*wrong[: limit - num_right], *right[:num_right]]


def _in_turn(cases: Sequence[Case], verdict: str, seed: int) -> list[Case]:
    """Sort the cases of a verdict, worst first; among equal cases, groups and tasks alternate."""
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
