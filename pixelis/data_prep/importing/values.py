"""Check raw values: texts, JSON objects, and fields with several names."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.data_prep.importing.record import RejectedError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 32
MAX_ID = 200

# Field -> the names that it may have in a user's file.
FIELD_NAMES = {
    "id": ("id", "sample_id", "question_id"),
    "task": ("task", "task_type", "category"),
    "sample_type": ("sample_type",),
    "question": ("question", "query", "prompt", "instruction"),
    "images": ("images", "image", "image_path", "image_paths"),
    "trajectory": ("trajectory", "steps", "trace"),
    "conclusion": ("conclusion",),
    "answer": ("answer", "final_answer"),
    "ground_truth": ("ground_truth", "expected_answer"),
    "thought": ("thought", "reasoning"),
    "operation": ("operation", "action", "tool", "name"),
    "arguments": ("arguments", "args", "parameters"),
    "result": ("result", "observation", "output"),
    "image": ("image",),
    "supervised": ("supervised",),
    "provenance": ("provenance",),
}

# The tags of calls, results and answers.
_TAGS = (CALL_OPEN, CALL_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE, "<answer>", "</answer>")
# The C0 control characters except tab and newline, and the delete character.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_PRIVATE = re.compile("[\ue000\ue001]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def show(value: Any, limit: int = 60) -> str:
    """Return a value as short text on one line, for an error."""
    if isinstance(value, str):
        return repr(value[:limit])
    if isinstance(value, int | float | None):
        return repr(value)[:limit]
    return (
        f"{type(value).__name__} of {len(value)}"
        if hasattr(value, "__len__")
        else str(value)[:limit]
    )


def get_field(data: Mapping[str, Any], name: str) -> Any:
    """Return a field's value under any of its names; None if it is absent or null."""
    given = [(key, data[key]) for key in FIELD_NAMES[name] if data.get(key) is not None]
    for key, value in given[1:]:
        if value != given[0][1]:
            raise RejectedError("wrong_type", f"{given[0][0]} and {key} differ; give one of them")
    return given[0][1] if given else None


def check_text(value: Any, what: str) -> str:
    r"""Return a text without its outer white space, line ends as `\n`."""
    if not isinstance(value, str):
        raise RejectedError("wrong_type", f"{what} must be a text, got {show(value)}")
    if len(value) > MAX_CHARACTERS:
        raise RejectedError(
            "too_large", f"{what} may have {MAX_CHARACTERS} characters, got {len(value)}"
        )
    text = value.replace("\r\n", "\n")
    for pattern, rule in (
        (_CONTROL, "control characters"),
        (_PRIVATE, "U+E000 or U+E001"),
        (_SURROGATE, "lone surrogates (it is not UTF-8)"),
    ):
        if match := pattern.search(text):
            code = f"U+{ord(match[0]):04X}"
            raise RejectedError(
                "characters", f"{what} may not hold {rule}, got {code} at {match.start()}"
            )
    return text.strip()


def check_assistant_text(value: Any, what: str) -> str:
    """Return a text of the assistant: `check_text`, and no tags of calls and answers."""
    text = check_text(value, what)
    check_markup(text, what)
    return text


def check_markup(text: str, what: str) -> None:
    """Refuse a text that would open or close a call, a result or an answer."""
    for tag in _TAGS:
        if tag in text:
            raise RejectedError("markup", f"{what} may not hold {tag}")


def parse_json(text: str) -> Any:
    """Parse a JSON text; NaN, Infinity and deep nesting are ValueErrors as well."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def is_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Return whether lists and objects are nested deeper than `limit`, without recursion."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def check_object(value: Any, what: str, reason: str = "wrong_type") -> dict[str, Any]:
    """Return a JSON object, given as an object or as JSON text, without its null entries.

    Nulls are dropped because parquet adds them when records have different keys.
    """
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise RejectedError(reason, f"{what} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise RejectedError(reason, f"{what} must be an object, got {show(value)}")
    if is_deep(value):
        raise RejectedError("too_large", f"{what} may be nested {MAX_DEPTH} deep")
    _check_leaves(value, what, reason)
    return {key: inner for key, inner in value.items() if inner is not None}


def _check_leaves(value: Any, what: str, reason: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            check_text(key, f"a key of {what}")
            _check_leaves(inner, what, reason)
    elif isinstance(value, list):
        for inner in value:
            _check_leaves(inner, what, reason)
    elif isinstance(value, str):
        check_text(value, what)
    elif isinstance(value, float) and not math.isfinite(value):
        raise RejectedError(reason, f"{what} must hold finite numbers, got {value}")
    elif not isinstance(value, int | float | None):
        raise RejectedError(reason, f"{what} must hold JSON values, got {type(value).__name__}")


def check_answer(value: Any, what: str) -> str | None:
    """Return an answer as text (a number in JSON form); None if it is absent or empty."""
    if value is None:
        return None
    number = isinstance(value, int) and not isinstance(value, bool)
    if number or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise RejectedError("wrong_type", f"{what} must be a text or a number, got {show(value)}")
    return check_text(value, what) or None


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
