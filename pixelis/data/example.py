"""The project's data record: one example of a chain of thought and action (CoTA)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

DIFFICULTIES = ("simple", "medium", "hard")
SPLITS = ("train", "validation", "test")
SAMPLE_TYPES = (
    "positive",
    "outcome_negative",
    "trap_perceptual",
    "trap_logical",
    "self_correction",
)


@dataclass(frozen=True)
class Step:
    """One thought, one call of an operation, and its observation."""

    thought: str  # the assistant's text before the call
    operation: str  # a name in `pixelis.operations.OPERATIONS`
    arguments: Mapping[str, Any]  # of the call; coordinates are pixels of the original image
    result: Mapping[str, Any]  # the observation's JSON object
    image: Image.Image | None = None  # the observation's image, or None
    # False for the planted wrong step of a self-correction, which is context only: no loss is taken
    # on it.
    supervised: bool = True


@dataclass(frozen=True)
class Example:
    """One example of a data set.

    `answer` and `ground_truth` are strings in one canonical form; structured truth (boxes, the
    flawed trajectory of a judgement) is in `provenance`. `conclusion` is the assistant's text
    before the answer.
    """

    id: str
    task: str
    sample_type: str
    question: str
    images: tuple[Image.Image, ...]
    trajectory: tuple[Step, ...]
    conclusion: str
    answer: str
    ground_truth: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    difficulty_score: float = 0.0
    difficulty: str = ""
    split: str = ""


def question_only(example_id: str, question: str, images: tuple[Image.Image, ...]) -> Example:
    """Return an example that has a question and its images but no solution, to be rolled out."""
    return Example(
        id=example_id,
        task="",
        sample_type="",
        question=question,
        images=images,
        trajectory=(),
        conclusion="",
        answer="",
        ground_truth="",
    )


def chance_level(provenance: Mapping[str, Any]) -> float | None:
    """Return the accuracy of a guesser who knows an example's question but not its images.

    It is 1 / `num_options`, the number of answers that the question allows: names that it lists,
    yes or no, directions, colours, shapes, counts, places. Where the question shows a flawed
    solution (`flawed`), whose answer is always wrong, it is one answer fewer, but at least one. It
    is 0 for free text (`num_options` is 0), and None if the number is not known, as in imported
    records.
    """
    num = provenance.get("num_options")
    if type(num) is not int or num < 0:
        return None
    return 1 / max(1, num - ("flawed" in provenance)) if num else 0.0
