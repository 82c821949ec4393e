"""Check raw values, and say why a record is rejected: texts, JSON objects, fields by any name."""

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN

MAX_CHARACTERS = 1_000_000
# More than a record needs, far less than the limit of pickle and of recursion.
MAX_DEPTH = 64
MAX_ID = 200
MAX_DETAIL = 300
UNSUPPORTED = "video and audio are not supported; give the frames of a video as images"

show = reprlib.repr  # a value as short text on one line

# Field -> the names that it may have in a user's file, if it has several.
FIELD_NAMES = {
    "id": ("id", "sample_id", "question_id"),
    "task": ("task", "task_type", "category"),
    "messages": ("messages", "message_list"),
    "question": ("question", "query", "prompt", "instruction", "problem"),
    # What a reply is called where it may be more than the answer alone.
    "reply": ("response", "output", "completion", "solution"),
    "images": ("images", "image", "image_path", "image_paths"),
    "trajectory": ("trajectory", "steps", "trace"),
    "answer": ("answer", "final_answer", "multiple_choice_answer"),
    "ground_truth": ("ground_truth", "expected_answer"),
    "thought": ("thought", "reasoning"),
    "operation": ("operation", "action", "tool", "name"),
    "arguments": ("arguments", "args", "parameters"),
    "result": ("result", "observation", "output"),
}

# The tags of calls, results and answers.
_TAGS = (CALL_OPEN, CALL_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE, "<answer>", "</answer>")
# Control characters except tab and newline, the private-use ones of our own templates, and halves
# of surrogate pairs, which UTF-8 does not have.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ue000\ue001\ud800-\udfff]")


@dataclass(frozen=True)
class Rejection:
    """The reason why a record was rejected (docs/data-formats.md), and one line of detail."""

    file: str
    line: int | None  # see Record; None where there is an id
    reason: str
    detail: str
    told: str = ""  # what the summary counts besides the reason, such as a tool without a mapping
    id: int | str | None = None  # of a COCO record, its id

    def as_row(self) -> dict[str, Any]:
        """Return what is known, for a file or a table."""
        names = ("file", "line", "id", "reason", "detail")
        row = {name: getattr(self, name) for name in names}
        return {name: value for name, value in row.items() if value is not None}


class RejectedError(Exception):
    """A broken rule of a record, raised by the checks and readers of this package."""

    def __init__(self, reason: str, detail: str, told: str = "") -> None:
        """Store the reason, a word of the list in docs/data-formats.md; else see `Rejection`."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.told = told

    def at(self, file: str, line: int | None, own_id: int | str | None = None) -> Rejection:
        """Return the rejection of a record, with a short detail on one line."""
        # Through `backslashreplace` because a detail may quote what is not UTF-8.
        detail = " ".join(self.detail.encode("utf-8", "backslashreplace").decode("utf-8").split())
        return Rejection(file, line, self.reason, detail[:MAX_DETAIL], self.told, own_id)


def get_field(data: Mapping[str, Any], name: str) -> Any:
    """Return a field's value under any of its names; None if it is absent, null or empty."""
    names = FIELD_NAMES.get(name, (name,))
    given = [key for key in names if data.get(key) not in (None, "", [])]
    for key in given[1:]:
        if data[key] != data[given[0]]:
            raise RejectedError("wrong_type", f"{given[0]} and {key} differ; give one of them")
    return data[given[0]] if given else None


def check_text(value: Any, what: str) -> str:
    r"""Return a text without its outer white space, line ends as `\n`."""
    if not isinstance(value, str):
        raise RejectedError("wrong_type", f"{what} must be a text, got {show(value)}")
    if len(value) > MAX_CHARACTERS:
        raise RejectedError(
            "too_large", f"{what} may have {MAX_CHARACTERS} characters, got {len(value)}"
        )
    text = value.replace("\r\n", "\n")
    if match := _FORBIDDEN.search(text):
        raise RejectedError(
            "characters",
            f"{what} may not hold control characters, U+E000, U+E001 or lone surrogates, got "
            f"U+{ord(match[0]):04X} at {match.start()}",
        )
    return text.strip()


def check_assistant_text(value: Any, what: str) -> str:
    """Return a text of the assistant: `check_text`, and no tags of calls and answers."""
    text = check_text(value, what)
    for tag in _TAGS:
        if tag in text:
            raise RejectedError("markup", f"{what} may not hold {tag}")
    return text


def parse_json(text: str) -> Any:
    """Parse a JSON text; NaN, Infinity and deep nesting are ValueErrors as well."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_depth(value)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def check_depth(value: Any) -> None:
    """Raise a ValueError if lists and objects are nested deeper than MAX_DEPTH."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):  # without recursion
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested too deeply, more than {MAX_DEPTH}")


def check_object(value: Any, what: str, reason: str = "wrong_type") -> dict[str, Any]:
    """Return a JSON object, given as an object or as JSON text, without its null entries.

    Nulls are dropped because parquet adds them when records have different keys.
    """
    try:
        if isinstance(value, str):
            value = parse_json(value)
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RejectedError(reason, f"{what} must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise RejectedError(reason, f"{what} must be an object, got {show(value)}")
    for text in _texts(value):
        check_text(text, what)
    return {key: inner for key, inner in value.items() if inner is not None}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(inner)


def read_list(value: Any) -> Any:
    """Return a value; a list that is kept as JSON text in a column is parsed."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            parsed = parse_json(value)
            return parsed if isinstance(parsed, list) else value
    return value


def check_answers(value: Any, what: str) -> list[str]:
    """Return the different answers of a field of one or several, the most frequent first.

    Of several people each may have answered; an answer may be an object (`answer`), as in VQA.
    """
    if what == "answers":  # a text that begins as a list may be an answer, but no `answers`
        value = read_list(value)
    given = value if isinstance(value, list) else [value]
    texts = [
        check_answer(each.get("answer", each) if isinstance(each, dict) else each, what)
        for each in given
    ]
    return [text for text, _ in Counter(filter(None, texts)).most_common()]


def get_answers(data: Mapping[str, Any]) -> list[str]:
    """Return all right answers that a record names beside its question, its own answer first."""
    names = ("answer", "answers", "ground_truth")
    found = (check_answers(get_field(data, name), name) for name in names)
    return list(dict.fromkeys(text for texts in found for text in texts))


def check_answer(value: Any, what: str) -> str | None:
    """Return an answer as text (a number in JSON form); None if it is absent or empty."""
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return json.dumps(value)
    if not isinstance(value, str | None):
        raise RejectedError("wrong_type", f"{what} must be a text or a number, got {show(value)}")
    return check_text(value or "", what) or None


def check_id(value: Any) -> str | None:
    """Return a record's own id as text; None if it has no id."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():  # pandas writes integers as floats
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RejectedError("wrong_type", f"id must be a text or a whole number, got {show(value)}")
    text = str(value)
    if len(text) > MAX_ID or not text.isprintable():
        rule = f"id must be printable and have at most {MAX_ID} characters"
        raise RejectedError("wrong_type", f"{rule}, got {show(text)}")
    return text
