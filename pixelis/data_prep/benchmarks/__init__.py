"""Read questions to evaluate on: benchmarks in their own layouts, or a user's records.

A layout reads one record of its file into a `Question`, images apart. The papers' scores are those
of `pixelis.evaluation.matching` for the kind of answer that a layout names.
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
