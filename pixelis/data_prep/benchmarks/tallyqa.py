"""TallyQA: counting questions, simple (a detector could answer them) and complex.

Acharya, Kafle and Kanan 2019, "TallyQA: Answering Complex Counting Questions" (AAAI), section 3.
`test.json` is a list of records with `image` (a path such as VG_100K/1.jpg), `question`, `answer`
(a whole number), `issimple` and `question_id`.

Score: accuracy, for simple and complex questions separately. Numbers in digits are compared by
value; number words up to fifteen, the largest answer of the data, are accepted. Also the RMSE
(`pixelis.evaluation.metrics.count_errors`), with the number of answers that are no number.
"""

from collections.abc import Mapping
from typing import Any

from pixelis.data_prep.benchmarks.question import (
    Layout,
    Question,
    image_path,
    question_text,
)
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_id, show

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen"),
)


def read(data: Mapping[str, Any]) -> Question:
    """Read the question of a record."""
    answer, simple = data.get("answer"), data.get("issimple")
    if answer is None:
        raise RejectedError("no_answer", "answer is missing")
    if type(answer) is not int or answer < 0:
        rule = "answer must be a whole number, not below 0"
        raise RejectedError("wrong_type", f"{rule}, got {show(answer)}")
    if type(simple) is not bool:
        raise RejectedError("wrong_type", f"issimple must be true or false, got {show(simple)}")
    return Question(
        id=check_id(data.get("question_id")),
        group="simple" if simple else "complex",
        text=question_text(data, "question"),
        image=image_path(data, "image"),
        truth=str(answer),
        alternatives=(WORDS[answer],) if answer < len(WORDS) else (),
        answer_type="number",
    )


LAYOUT = Layout("TallyQA", ("test.json",), read, "answer_accuracy", "accuracy", counts=True)
