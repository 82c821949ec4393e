"""Read questions to evaluate on: benchmarks in their own layouts, or a user's records."""

from pixelis.data_prep.benchmarks.layouts import LAYOUTS, WORDS, Layout
from pixelis.data_prep.benchmarks.questions import (
    QuestionSet,
    describe_rejection,
    questions_digest,
    read_questions,
)

__all__ = [
    "LAYOUTS",
    "WORDS",
    "Layout",
    "QuestionSet",
    "describe_rejection",
    "questions_digest",
    "read_questions",
]
