"""The composite score: a weighted sum of properties of the trajectory."""

import json
from collections.abc import Mapping, Sequence

from pixelis.curriculum.difficulty import combine, compute_components
from pixelis.data.example import Example
from pixelis.data_prep.difficulty.score import Score, Scorer
from pixelis.operations import OPERATIONS

# Imported records may have tasks without a weight.
UNKNOWN_TASK_WEIGHT = 0.5
# The error weight of each call that repeats an earlier one.
BACKTRACK_WEIGHT = 0.1


def count_backtracks(example: Example) -> int:
    """Count the calls that equal an earlier one in operation and arguments."""
    calls = [
        (step.operation, json.dumps(dict(step.arguments), sort_keys=True))
        for step in example.trajectory
    ]
    return len(calls) - len(set(calls))


def count_thoughts(example: Example) -> int:
    """Count the thoughts before calls, and the conclusion; empty ones do not count.

    Only the number counts, not the form: a long trace is as deep when it is badly written.
    """
    texts = [*(step.thought for step in example.trajectory), example.conclusion]
    return sum(bool(text.strip()) for text in texts)


def example_components(example: Example, task_weights: Mapping[str, float]) -> dict[str, float]:
    """Compute the composite's components of one example, each in [0, 1]."""
    used = [step.operation for step in example.trajectory]
    components = compute_components(
        sophistications=[OPERATIONS[name].sophistication for name in used],
        num_kinds_used=len(set(used)),
        num_kinds=len(OPERATIONS),
        num_thoughts=count_thoughts(example),
        num_corrections=sum(not step.supervised for step in example.trajectory),
        sample_type=example.sample_type,
        task_weight=task_weights.get(example.task, UNKNOWN_TASK_WEIGHT),
    )
    backtracks = BACKTRACK_WEIGHT * count_backtracks(example)
    return components | {"errors": min(1.0, components["errors"] + backtracks)}


def composite_scorer(weights: Mapping[str, float], task_weights: Mapping[str, float]) -> Scorer:
    """Build a scorer: the components of `pixelis.curriculum.difficulty`, weighted."""

    def score(examples: Sequence[Example]) -> list[Score]:
        components = [example_components(example, task_weights) for example in examples]
        # Weights sum to 1 only up to rounding.
        return [Score(min(1.0, combine(parts, weights)), parts) for parts in components]

    return score
