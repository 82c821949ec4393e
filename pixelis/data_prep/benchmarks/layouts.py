"""The layouts of public benchmarks: how a record of each becomes a question, and its score.

To add one, write a function that reads a record's answers, and its line in LAYOUTS.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pixelis.data_prep.importing.values import (
    RejectedError,
    check_answer,
    check_id,
    check_text,
    show,
)

MAX_GROUP = 60
# The characters that MLflow allows in a metric's name. The slash is left out: it separates groups.
_ODD = re.compile(r"[^\w .-]+")
# The largest answer of TallyQA is fifteen.
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen"),
)
_LETTERS = "ABCDEFGHIJ"
_LEADS = ("", "the answer is ", "the answer is: ", "the answer is option ", "answer: ", "option ")
_OPTION = re.compile(r"^\(([A-J])\)\s*(.*?)\s*$", re.MULTILINE)


class Question(NamedTuple):
    """A question of a benchmark, before its image is opened."""

    group: str  # the benchmark's own category, used instead of a difficulty
    record: dict[str, Any]  # a CoTA record of it, with the right answer
    alternatives: tuple[str, ...]  # other answers that count as right
    num_options: int | None = None  # number of answers that it allows, if known


@dataclass(frozen=True)
class Layout:
    """The layout of a benchmark's files, and its score."""

    title: str  # the benchmark's name in reports
    # Possible names of the file with the questions; the first that exists is read.
    files: tuple[str, ...]
    keys: tuple[str, str, str]  # the keys of a record's id, question and image
    # Makes the question from a record, and from its CoTA record without an answer.
    add_answers: Callable[[Mapping[str, Any], dict[str, Any]], Question]
    answer_type: str  # how answers are matched (`pixelis.evaluation.matching`)
    # The paper's score: `answer_accuracy` or another measure of `evaluation.summary`.
    score: str = "answer_accuracy"
    score_name: str = "accuracy"  # the score's name in the paper
    # Whether answers are counts of objects, for which the paper also reports the RMSE.
    counts: bool = False

    def read(self, data: Mapping[str, Any]) -> Question:
        """Read the question of a record.

        Raises:
            RejectedError: when the record breaks a rule.
        """
        record = dict(zip(("id", "question", "image"), map(data.get, self.keys), strict=True))
        if not isinstance(record["image"], str):  # a record may not contain image bytes
            rule = f"{self.keys[2]} must be a path"
            raise RejectedError("no_image", f"{rule}, got {show(record['image'])}")
        return self.add_answers(data, record)


def _add_texts(data: Mapping[str, Any], record: dict[str, Any]) -> Question:
    answers = data.get("answers") or []
    if not isinstance(answers, list):
        raise RejectedError("wrong_type", f"answers must be a list, got {show(answers)}")
    kinds = data.get("answer_type")
    group = group_name(kinds[0] if isinstance(kinds, list) and kinds else kinds, "questions")
    given = [answer for answer in (check_answer(each, "an answer") for each in answers) if answer]
    return Question(group, record | {"answer": given[0] if given else None}, tuple(given[1:]))


def _add_count(data: Mapping[str, Any], record: dict[str, Any]) -> Question:
    answer, simple = data.get("answer"), data.get("issimple")
    if type(answer) is not int or answer < 0:
        rule = "answer must be a whole number, not below 0"
        raise RejectedError("no_answer", f"{rule}, got {show(answer)}")
    if type(simple) is not bool:
        raise RejectedError("wrong_type", f"issimple must be true or false, got {show(simple)}")
    words = (WORDS[answer],) if answer < len(WORDS) else ()
    return Question("simple" if simple else "complex", record | {"answer": answer}, words)


def _add_choice(data: Mapping[str, Any], record: dict[str, Any]) -> Question:
    text = check_text(record["question"] or "", "text")
    options: dict[str, str] = dict(_OPTION.findall(text))
    if (listed := data.get("options")) is not None:
        if not isinstance(listed, list) or not 2 <= len(listed) <= len(_LETTERS):
            raise RejectedError(
                "wrong_type", f"options must be a list of 2 to 10, got {show(listed)}"
            )
        texts = [check_text(words, "an option") for words in listed]
        named = [*zip(_LETTERS, texts, strict=False)]
        if not options:
            lines = [f"({letter}) {words}" for letter, words in named]
            text = "\n".join([text, *lines, "Answer with the letter of the right option."])
        options = dict(named)
    if len(options) < 2:
        raise RejectedError("wrong_type", f"text must hold two options (A), (B), got {show(text)}")
    letter = (check_answer(data.get("label"), "label") or "").strip("()").upper()
    if letter not in options:
        raise RejectedError(
            "no_answer", f"label must be one of {', '.join(options)}, got {show(letter)}"
        )
    words = options[letter]
    same = [each for each in options.values() if each.casefold() == words.casefold()]
    group, own_id = group_name(data.get("category"), "other"), check_id(record["id"])
    if own_id is not None:
        own_id = f"{group}/{own_id}"  # in the published file it starts again in every group
    made = record | {"id": own_id, "question": text, "answer": letter}
    forms = _forms(letter, words, alone=len(same) == 1)
    return Question(group, made, forms, num_options=len(options))


def _forms(letter: str, words: str, *, alone: bool) -> tuple[str, ...]:
    """Return every other accepted wording; case and white space are ignored.

    Right is the letter, as `A`, `(A)`, `A.`, `A)` or `A:`, also followed by the option's text, or
    (`alone`) the text without it. Each form may follow `the answer is`, `answer:` or `option`, and
    may end with a full stop.
    """
    marks = [f"{letter}{end}" for end in ("", ".", ")", ":")] + [f"({letter})"]
    forms = [*marks]
    if words:
        forms += [f"{mark} {words}" for mark in (*marks, f"{letter},", f"({letter}),")]
        forms += [words] if alone else []
    forms += [f"{each}." for each in forms if not each.endswith((".", ":"))]
    return tuple(dict.fromkeys(lead + each for lead in _LEADS for each in forms))[1:]


def group_name(value: Any, otherwise: str) -> str:
    """Return a group's name with the characters that a metric's name may have."""
    text = value if isinstance(value, str) else ""
    name = _ODD.sub("-", " ".join(text.split())).strip(" -.")[:MAX_GROUP]
    # `all` is the name of the total over groups.
    return otherwise if name.casefold() in ("", "all") else name


LAYOUTS = {
    # Wu and Xie 2024, "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs" (CVPR),
    # 5.1: multiple choice about small things in large photographs. `text` has the options, a line
    # each that begins with `(A)`; or `options` is a list. The paper compares the likelihoods of the
    # options, or asks for the letter; here a rule decides: see `_forms`.
    "vstar": Layout(
        "V*Bench",
        ("test_questions.jsonl",),
        ("question_id", "text", "image"),
        _add_choice,
        "exact",
    ),
    # Mathew et al. 2022, "InfographicVQA" (WACV), 3: a JSON file with a list `data`; `answers` are
    # all correct ones. In the validation file "withQT", the first `answer_type` (single span, ...)
    # is the group. The test file has no answers. Score: ANLS with threshold 0.5 (Biten et al. 2019,
    # section 4), the best of the answers.
    "infographicvqa": Layout(
        "InfographicVQA",
        ("infographicsVQA_val_v1.0_withQT.json", "infographicsVQA_val_v1.0.json"),
        ("questionId", "question", "image_local_name"),
        _add_texts,
        "text",
        "answer_score",
        "ANLS",
    ),
    # Acharya, Kafle and Kanan 2019, "TallyQA: Answering Complex Counting Questions" (AAAI), 3:
    # simple counting questions (a detector could answer them) and complex ones. Numbers are
    # compared by value, or in words. Also the RMSE (`pixelis.evaluation.metrics.count_errors`).
    "tallyqa": Layout(
        "TallyQA",
        ("test.json",),
        ("question_id", "question", "image"),
        _add_count,
        "number",
        counts=True,
    ),
}
