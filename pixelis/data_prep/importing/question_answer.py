"""Read a record of one question and its answer, as public data write it, as turns of a chat.

`query` and `response`, `instruction`, `input` and `output`, `prompt` and `completion`, `problem`
and `solution`, `question` and `answer` or `answers`; earlier rounds may be in `history`.
"""

from collections.abc import Mapping
from typing import Any

from pixelis.data_prep.importing.values import (
    FIELD_NAMES,
    RejectedError,
    check_text,
    get_answers,
    get_field,
    read_list,
    show,
)

# Keys that hold the assistant's thought, of a record or of a turn.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def is_trajectory(data: Mapping[str, Any]) -> bool:
    """Return whether a record is in our own form, with its steps or its conclusion."""
    return any(data.get(name) is not None for name in (*FIELD_NAMES["trajectory"], "conclusion"))


def question_turns(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the turns up to the question; `reply_turn` gives the last one."""
    history = read_list(get_field(data, "history")) or []
    turns = []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RejectedError("wrong_type", f"history must be pairs of texts, got {show(pair)}")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    parts = [check_text(get_field(data, "question") or "", "question")]
    if isinstance(data.get("input"), str):
        parts.append(check_text(data["input"], "input"))
    question = "\n".join(filter(None, parts))
    _check_options(data, question)
    return [*turns, {"role": "user", "content": question}]


def _check_options(data: Mapping[str, Any], question: str) -> None:
    """Refuse an answer by number or letter if the question does not show the options."""
    for name in ("choices", "options"):
        options = read_list(data.get(name))
        options = [*options.values()] if isinstance(options, dict) else options
        if not isinstance(options, list) or not options or not (answers := get_answers(data)):
            continue
        texts = [str(option) for option in options]
        is_name = len(answers[0].strip("().:")) == 1 and answers[0] not in texts
        if is_name and not all(text in question for text in texts):
            raise RejectedError(
                "no_answer",
                f"the answer must be one of {name} {show(texts)}, which the question does not "
                f"show, got {show(answers[0])}",
            )


def reply_turn(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the assistant's turn of an answer beside the question; None if there is none.

    A reply beside an answer is the way to it.
    """
    reply = check_text(get_field(data, "reply") or "", "the reply")
    answers = get_answers(data)
    if answers and reply not in answers and "<answer>" not in reply:
        reply = f"{reply}\n<answer>{answers[0]}</answer>" if reply else answers[0]
    if not reply:
        return None
    thoughts = {name: data[name] for name in THOUGHTS if data.get(name) is not None}
    return {"role": "assistant", "content": reply, **thoughts}
