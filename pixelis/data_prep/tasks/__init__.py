"""The tasks by name; each makes a proposal about an image, or None if the image does not suit.

To add a task, add a file here and its line in each of these two tables.
"""

import random
from collections.abc import Callable

from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.tasks import (
    attribute_recognition,
    geometric_comparison,
    object_counting,
    relationship_detection,
    spatial_reasoning,
    temporal_tracking,
    text_extraction,
)
from pixelis.data_prep.tasks.proposal import Proposal

TASKS: dict[str, Callable[[random.Random, AnnotatedImage], Proposal | None]] = {
    "attribute_recognition": attribute_recognition.propose,
    "object_counting": object_counting.propose,
    "geometric_comparison": geometric_comparison.propose,
    "spatial_reasoning": spatial_reasoning.propose,
    "text_extraction": text_extraction.propose,
    "relationship_detection": relationship_detection.propose,
    "temporal_tracking": temporal_tracking.propose,
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
