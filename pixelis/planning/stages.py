"""Which examples a training draws, as far as that is known before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pixelis.curriculum import CurriculumConfig, CurriculumManager

DEPENDS = {
    "staged": "the earliest course: every attempt succeeds at once. Attempts that fail or are "
    "rolled back make a stage longer, and those after it later",
    "schedule": "exact: stages begin at their steps",
    "competence": "exact: what is in is a matter of the step and of the data's difficulty scores",
    "self_paced": "not known before: which examples are in is decided by their losses",
    "adaptive": "not known before: the shares follow the losses",
    "fixed mix": "exact: one mix from the first step",
}


@dataclass(frozen=True)
class StagePlan:
    """A part of the training with one name.

    Attributes:
        name: of the stage.
        first_step: the first one that draws from it.
        steps: how many there are.
        examples: difficulty -> how many are drawn.
    """

    name: str
    first_step: int
    steps: int
    examples: Mapping[str, float]


def plan_course(
    curriculum: CurriculumConfig,
    *,
    max_steps: int,
    examples_per_step: int,
    scores: Mapping[str, Sequence[float]] | None,
) -> list[StagePlan] | None:
    """The course in which nothing fails, by the curriculum's own manager; None: not known before.

    Args:
        curriculum: the checked section.
        max_steps: optimiser steps.
        examples_per_step: of all processes.
        scores: difficulty scores of the training examples, where the data is there.
    """
    strategy = curriculum.strategy_label
    if strategy in ("self_paced", "adaptive") or (strategy == "competence" and not scores):
        return None
    manager = CurriculumManager(curriculum, max_steps)
    if scores:
        manager.bind({name: list(found) for name, found in scores.items()})
    best = dict.fromkeys(manager.required_difficulties, 1.0)
    found: list[StagePlan] = []
    names: list[str] = []
    drawn: list[dict[str, float]] = []
    for step in range(1, max_steps + 1):
        name = manager.events[-1].to_stage or manager.stage
        mix = manager.mix
        if not names or names[-1] != name:
            names.append(name)
            drawn.append(dict.fromkeys(mix, 0.0))
            found.append(StagePlan(name, step, 0, {}))
        for difficulty, share in mix.items():
            drawn[-1][difficulty] = drawn[-1].get(difficulty, 0) + share * examples_per_step
        last = found[-1]
        found[-1] = StagePlan(name, last.first_step, last.steps + 1, drawn[-1])
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, best)
    return found


def drawn_in_all(course: Sequence[StagePlan]) -> dict[str, float]:
    """Examples of each difficulty over the whole training."""
    total: dict[str, float] = {}
    for stage in course:
        for difficulty, number in stage.examples.items():
            total[difficulty] = total.get(difficulty, 0) + number
    return total
