"""The tasks by name: each is a function from a random generator to a proposed example."""

import random
from collections.abc import Callable

from pixelis.data.tasks import (
    attribute_recognition,
    geometric_comparison,
    object_counting,
    spatial_reasoning,
    text_extraction,
)
from pixelis.data.tasks.draft import Call, Draft

__all__ = ["TASKS", "TASK_WEIGHTS", "Call", "Draft"]

TASKS: dict[str, Callable[[random.Random], Draft]] = {
    "attribute_recognition": attribute_recognition.build,
    "object_counting": object_counting.build,
    "geometric_comparison": geometric_comparison.build,
    "spatial_reasoning": spatial_reasoning.build,
    "text_extraction": text_extraction.build,
}

# The task's own part of the difficulty score, in [0, 1].
TASK_WEIGHTS: dict[str, float] = {
    "attribute_recognition": 0.2,
    "text_extraction": 0.4,
    "object_counting": 0.6,
    "spatial_reasoning": 0.7,
    "geometric_comparison": 0.8,
}
