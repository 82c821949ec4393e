"""A question of a benchmark before its image is opened, and the layout of a benchmark's files."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_answer, check_text, show

MAX_GROUP = 60
# The characters that MLflow allows in a metric's name. The slash is left out: it separates groups.
_ODD = re.compile(r"[^\w .-]+")


@dataclass(frozen=True)
class Question:
    """A question of a benchmark.

    Attributes:
        id: the benchmark's own id, or None.
        group: the benchmark's own category, used instead of a difficulty.
        text: the question that the model sees.
        image: the image's path in the benchmark's folder.
        truth: the right answer.
        alternatives: other answers that count as right.
        answer_type: how answers are matched (`pixelis.evaluation.matching`).
    """

    id: str | None
    group: str
    text: str
    image: str
    truth: str
    alternatives: tuple[str, ...]
    answer_type: str


@dataclass(frozen=True)
class Layout:
    """The layout of a benchmark's files, and its score.

    Attributes:
        title: the benchmark's name in reports.
        files: possible names of the file with the questions; the first that exists is read.
        read: converts a record to a question; raises RejectedError.
        score: the paper's score: `answer_accuracy` or another measure of `evaluation.summary`.
        score_name: the score's name in the paper.
        counts: whether answers are counts of objects, for which the paper also reports the RMSE.
    """

    title: str
    files: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Question]
    score: str
    score_name: str
    counts: bool = False


def question_text(data: Mapping[str, Any], key: str) -> str:
    """Return the text of the question."""
    text = "" if data.get(key) is None else check_text(data[key], key)
    if not text:
        raise RejectedError("missing_text", f"{key} is missing or empty")
    return text


def image_path(data: Mapping[str, Any], key: str) -> str:
    """Return the path of the image, which must be a text: a record may not contain image bytes."""
    value = data.get(key)
    if value is None:
        raise RejectedError("no_image", f"{key} is missing")
    if not isinstance(value, str):
        raise RejectedError("wrong_type", f"{key} must be a path, got {show(value)}")
    return value


def answer_text(value: Any, what: str) -> str:
    """Return an answer as text."""
    answer = check_answer(value, what)
    if answer is None:
        raise RejectedError("no_answer", f"{what} is missing or empty")
    return answer


def group_name(value: Any, otherwise: str) -> str:
    """Return a group's name with the characters that a metric's name may have."""
    text = value if isinstance(value, str) else ""
    name = _ODD.sub("-", " ".join(text.split())).strip(" -.")[:MAX_GROUP]
    # `all` is the name of the total over groups.
    return otherwise if name.casefold() in ("", "all") else name
