"""The composite score: a weighted sum of properties of the trajectory.

Every component is in [0, 1] and grows with the difficulty; none depends on the form of the text: a
long trace is as deep when it is badly written.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pixelis.data.example import Example
from pixelis.operations import OPERATIONS

COMPONENTS = ("trajectory", "operations", "reasoning", "errors", "task")
# Beyond this many steps the logarithmic components are 1.
FULL_STEPS = 15
MAX_SOPHISTICATION = 3
# Share of the operations component that counts how many kinds are used.
KINDS_SHARE = 0.2
ERROR_WEIGHTS = {
    "positive": 0.0,
    "outcome_negative": 0.4,
    "self_correction": 0.5,
    "trap_perceptual": 0.8,
    "trap_logical": 1.0,
}
# The error weight of each wrong step after the first, and of each call that repeats an earlier one.
CORRECTION_WEIGHT = BACKTRACK_WEIGHT = 0.1
# Imported records may have tasks without a weight.
UNKNOWN_TASK_WEIGHT = 0.5


@dataclass(frozen=True)
class Score:
    """The difficulty of one example, with the components that explain it."""

    value: float  # in [0, 1]; larger is harder
    # Name -> part in [0, 1], each growing with what makes the example hard.
    components: Mapping[str, float]

    def __post_init__(self) -> None:
        """Assert that all parts are in [0, 1]: other values are a bug of the scorer."""
        for name, part in {"value": self.value, **self.components}.items():
            assert 0 <= part <= 1, f"difficulty {name} must be in [0, 1], got {part}"


Scorer = Callable[[Sequence[Example]], list[Score]]


def log_scaled(count: int, full: int) -> float:
    """Return log(1 + count) / log(1 + full), at most 1."""
    return min(1.0, math.log1p(count) / math.log1p(full))


def example_components(example: Example, task_weights: Mapping[str, float]) -> dict[str, float]:
    """Compute the composite's components of one example, each in [0, 1].

    Args:
        example: the example.
        task_weights: hardness of each task in [0, 1].
    """
    steps = example.trajectory
    used = [step.operation for step in steps]
    levels = [OPERATIONS[name].sophistication for name in used]
    mean = sum(levels) / len(levels) / MAX_SOPHISTICATION if levels else 0.0
    thoughts = [*(step.thought for step in steps), example.conclusion]
    calls = [(step.operation, json.dumps(dict(step.arguments), sort_keys=True)) for step in steps]
    corrections = sum(not step.supervised for step in steps)
    errors = ERROR_WEIGHTS[example.sample_type] + CORRECTION_WEIGHT * max(0, corrections - 1)
    backtracks = BACKTRACK_WEIGHT * (len(calls) - len(set(calls)))
    return {
        "trajectory": log_scaled(len(steps), FULL_STEPS),
        "operations": (1 - KINDS_SHARE) * mean + KINDS_SHARE * len(set(used)) / len(OPERATIONS),
        "reasoning": log_scaled(sum(bool(text.strip()) for text in thoughts), FULL_STEPS),
        "errors": min(1.0, min(1.0, errors) + backtracks),
        "task": task_weights.get(example.task, UNKNOWN_TASK_WEIGHT),
    }


def composite_scorer(weights: Mapping[str, float], task_weights: Mapping[str, float]) -> Scorer:
    """Build a scorer: the weighted sum of the components; weights are >= 0 and sum to 1."""

    def score(example: Example) -> Score:
        parts = example_components(example, task_weights)
        total = sum(weights[name] * parts[name] for name in COMPONENTS)
        return Score(min(1.0, total), parts)  # weights sum to 1 only up to rounding

    return lambda examples: [score(example) for example in examples]
