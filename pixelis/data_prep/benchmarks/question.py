"""A question of a benchmark before its image is opened, and the layout of a benchmark's files."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_answer, check_text, show

MAX_GROUP = 60
# What MLflow takes in a metric's name, the slash apart: it divides the names of groups.
_ODD = re.compile(r"[^\w .-]+")


@dataclass(frozen=True)
class Question:
    """A question as a layout reads it.

    Attributes:
        id: the benchmark's own, or None.
        group: of the benchmark's own division; it takes the place of a difficulty.
        text: as the model is to see it.
        image: the path in the benchmark's folder.
        truth: the right answer.
        alternatives: others that are as right.
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
    """How a benchmark's files are laid out, and its score.

    Attributes:
        title: its name for people.
        files: names of the file with the questions in its folder, the first that is there counts.
        read: a record to its question; raises RejectedError.
        score: the paper's score: `answer_accuracy`, or a measure of `evaluation.summary`.
        score_name: what the paper calls it.
        counts: answers are numbers of things, of which the paper gives the RMSE as well.
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
    """Return the path of the image: text alone, so that a record cannot bring its bytes."""
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
    # `all` is the group of all.
    return otherwise if name.casefold() in ("", "all") else name
