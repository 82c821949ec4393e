"""InfographicVQA: questions about infographics, answered in a few words.

Mathew et al. 2022, "InfographicVQA" (WACV), section 3. A JSON file with a list `data` of records
with `questionId`, `question`, `image_local_name`, `answers` (all correct ones) and, in the
validation file "withQT", `answer_type` (a list: single span, multi span, ...), whose first entry is
the group. Images are in the folder of the file or in the folder that the user names. The test file
has no answers, so it cannot be scored here.

Score: ANLS with threshold 0.5 (Biten et al. 2019, section 4), the best of the answers.
"""

from collections.abc import Mapping
from typing import Any

from pixelis.data_prep.benchmarks.question import (
    Layout,
    Question,
    answer_text,
    group_name,
    image_path,
    question_text,
)
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_id, show


def read(data: Mapping[str, Any]) -> Question:
    """Read the question of a record."""
    answers = data.get("answers")
    if answers is None or answers == []:
        raise RejectedError("no_answer", "answers is missing or empty")
    if not isinstance(answers, list):
        raise RejectedError("wrong_type", f"answers must be a list, got {show(answers)}")
    truth, *others = [answer_text(each, "an answer") for each in answers]
    kinds = data.get("answer_type")
    kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
    return Question(
        id=check_id(data.get("questionId")),
        group=group_name(kind, "questions"),
        text=question_text(data, "question"),
        image=image_path(data, "image_local_name"),
        truth=truth,
        alternatives=tuple(others),
        answer_type="text",
    )


LAYOUT = Layout(
    "InfographicVQA",
    ("infographicsVQA_val_v1.0_withQT.json", "infographicsVQA_val_v1.0.json"),
    read,
    "answer_score",
    "ANLS",
)
