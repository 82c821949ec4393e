"""V*Bench: multiple choice about small things in large photographs.

Wu and Xie 2024, "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs" (CVPR), section
5.1. The folder holds `test_questions.jsonl`, a record a line with `image` (a path in the folder),
`text` (the question with its options, `(A) ...` a line each), `category` (direct_attributes or
relative_position), `label` (the letter) and `question_id`; or `options`, a list, beside the text.

Score: accuracy. The letter counts, with or without brackets, full stop or the option's words behind
it, and so do the words alone where no other option has the same; any other wording is wrong.
"""

import re
from collections.abc import Mapping
from typing import Any

from pixelis.data.benchmarks.question import (
    Layout,
    Question,
    answer_text,
    group_name,
    image_path,
    own_id,
    question_text,
)
from pixelis.data.importing.record import RejectedError
from pixelis.data.importing.values import check_text, show

LETTERS = "ABCDEFGHIJ"
_OPTION = re.compile(r"^\(([A-J])\)\s*(.*?)\s*$", re.MULTILINE)


def read(data: Mapping[str, Any]) -> Question:
    """The question of a record.

    Raises:
        RejectedError: when a field breaks its rule.
    """
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
    forms = [f"({letter})", f"{letter}.", f"({letter}) {words}", f"{letter}. {words}"]
    forms += [f"{letter}: {words}", f"{letter}) {words}", f"{letter} {words}", f"{letter})"]
    same = [each for each in options.values() if each.casefold() == words.casefold()]
    if words and len(same) == 1:
        forms += [words, f"{words}."]
    return Question(
        id=own_id(data, "question_id"),
        group=group_name(data.get("category"), "other"),
        text=text,
        image=image_path(data, "image"),
        truth=letter,
        alternatives=tuple(forms),
        answer_type="text",
    )


def _listed(value: Any) -> dict[str, str]:
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        raise RejectedError("wrong_type", f"options must be a list of 2 to 10, got {show(value)}")
    return {
        letter: check_text(each, "an option") for letter, each in zip(LETTERS, value, strict=False)
    }


LAYOUT = Layout("V*Bench", ("test_questions.jsonl",), read, "answer_accuracy", "accuracy")
