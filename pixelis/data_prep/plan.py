"""Plan generated examples: the number, the task and the sample type of each."""

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pixelis.config import DataPrepConfig

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class PlannedExample:
    """The number, task and sample type of an example to generate."""

    index: int
    task: str
    sample_type: str


def plan_samples(
    num_samples: int, seed: int, tasks: Sequence[str], ratios: Mapping[str, float]
) -> list[PlannedExample]:
    """Plan every example: tasks in turn, sample types in exact shares, shuffled."""
    types = [name for name, ratio in ratios.items() for _ in range(round(ratio * num_samples))]
    types = types[:num_samples] + ["positive"] * (num_samples - len(types))
    random.Random(f"types:{seed}").shuffle(types)
    return [
        PlannedExample(index, tasks[index % len(tasks)], kind) for index, kind in enumerate(types)
    ]


def plan_photographs(
    num_samples: int, seed: int, tasks: Sequence[str], ratios: Mapping[str, float]
) -> list[PlannedExample]:
    """Plan tasks in turn and sample types in near shares; a smaller number is a part of the plan.

    So if photographs run out of examples, every smaller number works. Multiples of the golden ratio
    spread the sample types evenly over numbers and tasks.
    """
    start = random.Random(f"types:{seed}").random()
    types, ends = [*ratios, "positive"], list(accumulate(ratios.values()))
    positions = [(start + index * GOLDEN_RATIO) % 1 for index in range(num_samples)]
    return [
        PlannedExample(index, tasks[index % len(tasks)], types[bisect(ends, position)])
        for index, position in enumerate(positions)
    ]


def sample_ratios(config: DataPrepConfig) -> dict[str, float]:
    """Return the share of every sample type except `positive`, which gets the rest."""
    traps = config.trap_ratio / 2 if config.include_traps else 0.0
    return {
        "self_correction": config.self_correction_ratio,
        "outcome_negative": config.negative_ratio if config.include_negatives else 0.0,
        "trap_perceptual": traps,
        "trap_logical": traps,
    }
