"""The tasks by name: each asks about a given picture, or says that it does not suit (None)."""

import random
from collections.abc import Callable

from pixelis.data_prep.picture import Picture
from pixelis.data_prep.tasks import (
    attribute_recognition,
    geometric_comparison,
    object_counting,
    relationship_detection,
    spatial_reasoning,
    temporal_tracking,
    text_extraction,
)
from pixelis.data_prep.tasks.draft import Call, Draft

__all__ = ["TASKS", "TASK_WEIGHTS", "Call", "Draft"]

TASKS: dict[str, Callable[[random.Random, Picture], Draft | None]] = {
    "attribute_recognition": attribute_recognition.build,
    "object_counting": object_counting.build,
    "geometric_comparison": geometric_comparison.build,
    "spatial_reasoning": spatial_reasoning.build,
    "text_extraction": text_extraction.build,
    "relationship_detection": relationship_detection.build,
    "temporal_tracking": temporal_tracking.build,
}

# The task's own part of the difficulty score, in [0, 1].
TASK_WEIGHTS: dict[str, float] = {
    "attribute_recognition": 0.2,
    "text_extraction": 0.4,
    "object_counting": 0.6,
    "spatial_reasoning": 0.7,
    "relationship_detection": 0.7,
    "geometric_comparison": 0.8,
    "temporal_tracking": 0.9,
}
