"""Read questions to evaluate on: benchmarks in their own layouts, or a user's records.

A layout reads one record of its file into a `Question`, without opening the image. It names the
kind of its answers; `pixelis.evaluation.matching` has the paper's score for each kind.
"""

from pixelis.data_prep.benchmarks.question import Layout, Question
from pixelis.data_prep.benchmarks.questions import (
    LAYOUTS,
    QuestionSet,
    describe_rejection,
    questions_digest,
    read_questions,
)

__all__ = [
    "LAYOUTS",
    "Layout",
    "Question",
    "QuestionSet",
    "describe_rejection",
    "questions_digest",
    "read_questions",
]
