"""V*Bench: multiple choice about small things in large photographs.

Wu and Xie 2024, "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs" (CVPR), section
5.1. The folder holds `test_questions.jsonl`, one record per line with `image` (a path in the
folder), `text` (the question with its options, `(A) ...` a line each), `category`
(direct_attributes or relative_position), `label` (the letter) and `question_id`; or `options`, a
list, in addition to the text.

Score: accuracy. The paper compares the likelihoods of the options, or asks for the letter; here a
rule decides. Right is the letter, as `A`, `(A)`, `A.`, `A)` or `A:`, also followed by the option's
text (`A, red`, `(A) red`, ...), or the text alone if no other option has the same. Each form may
follow `the answer is`, `answer:` or `option`, and may end with a full stop. Case and white space
are ignored. Any other wording is wrong, and so is a letter with the text of another option.

In the published file `question_id` starts again in every category, so ids are prefixed with the
group.
"""

import re
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
from pixelis.data_prep.importing.values import check_id, check_text, show

LETTERS = "ABCDEFGHIJ"
LEADS = ("", "the answer is ", "the answer is: ", "the answer is option ", "answer: ", "option ")
_OPTION = re.compile(r"^\(([A-J])\)\s*(.*?)\s*$", re.MULTILINE)


def read(data: Mapping[str, Any]) -> Question:
    """Read the question of a record."""
    text = question_text(data, "text")
    options = dict(_OPTION.findall(text))
    if data.get("options") is not None:
        listed = _listed(data["options"])
        if not options:
            lines = [f"({letter}) {words}" for letter, words in listed.items()]
            text = "\n".join([text, *lines, "Answer with the letter of the right option."])
        options = listed
    if len(options) < 2:
        raise RejectedError("wrong_type", f"text must hold two options (A), (B), got {show(text)}")
    letter = answer_text(data.get("label"), "label").strip("()").upper()
    if letter not in options:
        choices = ", ".join(options)
        raise RejectedError("wrong_type", f"label must be one of {choices}, got {show(letter)}")
    words = options[letter]
    same = [each for each in options.values() if each.casefold() == words.casefold()]
    group, number = group_name(data.get("category"), "other"), check_id(data.get("question_id"))
    return Question(
        id=None if number is None else f"{group}/{number}",
        group=group,
        text=text,
        image=image_path(data, "image"),
        truth=letter,
        alternatives=_forms(letter, words, alone=len(same) == 1),
        answer_type="exact",
    )


def _forms(letter: str, words: str, *, alone: bool) -> tuple[str, ...]:
    """Return every other accepted wording; `alone`: accept the option's text without its letter."""
    marks = [f"{letter}{end}" for end in ("", ".", ")", ":")] + [f"({letter})"]
    forms = [*marks]
    if words:
        forms += [f"{mark} {words}" for mark in (*marks, f"{letter},", f"({letter}),")]
        forms += [words] if alone else []
    forms += [f"{each}." for each in forms if not each.endswith((".", ":"))]
    return tuple(dict.fromkeys(lead + each for lead in LEADS for each in forms))[1:]


def _listed(value: Any) -> dict[str, str]:
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        raise RejectedError("wrong_type", f"options must be a list of 2 to 10, got {show(value)}")
    return {
        letter: check_text(each, "an option") for letter, each in zip(LETTERS, value, strict=False)
    }


LAYOUT = Layout("V*Bench", ("test_questions.jsonl",), read, "answer_accuracy", "accuracy")
