"""Turns -> rounds of question, calls and answer, each the draft of one example."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.data_prep.importing.assemble import Draft
from pixelis.data_prep.importing.draft import (
    MAX_STEPS,
    Call,
    check_arguments,
    check_operation,
    check_said,
    read_result,
)
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.turns import Turn, read_turns
from pixelis.data_prep.importing.values import MAX_CHARACTERS, field, parse_json, show

MAX_ROUNDS = 64


def _read_chat(data: Mapping[str, Any], folder: Path, *, marked: bool) -> list[Draft]:
    rounds = list(_rounds(read_turns(data, folder, marked=marked)))
    drafts: list[Draft] = []
    images: tuple[Image.Image, ...] = ()
    earlier = ""
    for current in rounds:
        images += tuple(current.images)
        conclusion, answer = split_answer("\n".join(current.said))
        if not answer:
            asked = show(current.question())
            raise RejectedError("no_answer", f"the question has no answer: {asked}")
        question = current.question()
        # Without its own question a round asks nothing, whatever was said earlier.
        shown = f"{earlier}{question}" if question else ""
        if len(shown) > MAX_CHARACTERS:
            raise RejectedError(
                "too_large",
                f"a question and what was said before may have {MAX_CHARACTERS} "
                f"characters, got {len(shown)}",
            )
        calls = tuple(call for call, _ in current.calls)
        drafts.append(Draft(shown, images, calls, conclusion, answer))
        earlier += f"Earlier: {question}\nAnswer: {answer}\n"
    return drafts


# System turns are left out by both: ours is written from the operations.
read_messages = partial(_read_chat, marked=False)
read_conversations = partial(_read_chat, marked=True)


class _Round:
    """A question while its answer is read."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.images: list[Image.Image] = []
        self.calls: list[tuple[Call, str]] = []  # with the call's id
        self.answered: set[int] = set()  # positions of calls that have had their result
        self.said: list[str] = []  # by the assistant since the last call

    def question(self) -> str:
        return "\n".join(text for text in self.asked if text)

    def add_calls(self, thought: str, raw: list[Any]) -> None:
        thought = "\n".join(text for text in (*self.said, thought) if text)
        self.said = []
        for one in raw:
            call, call_id = read_call(one)
            self.calls.append((replace(call, thought=check_said(thought, "a thought")), call_id))
            thought = ""
        if len(self.calls) > MAX_STEPS:
            raise RejectedError("too_large", f"a trajectory may have {MAX_STEPS} steps")

    def open_calls(self) -> list[int]:
        return [i for i in range(len(self.calls)) if i not in self.answered]

    def add_result(self, text: str, images: tuple[Image.Image, ...], call_id: str = "") -> None:
        waiting = self.open_calls()
        if not waiting or self.said:
            raise RejectedError("wrong_turns", f"a result without a call: {show(text)}")
        if len(images) > 1:
            raise RejectedError("image_count", f"a result may have one image, got {len(images)}")
        position = next((i for i in waiting if call_id and self.calls[i][1] == call_id), waiting[0])
        call, own_id = self.calls[position]
        image = images[0] if images else None
        self.calls[position] = (replace(call, result=read_result(text), image=image), own_id)
        self.answered.add(position)


def _rounds(turns: list[Turn]) -> Iterator[_Round]:
    current: _Round | None = None
    count = 0
    for turn in turns:
        if turn.role == "system":
            continue
        responds = turn.role == "user" and RESPONSE_OPEN in turn.text
        if turn.role == "user" and not (responds and current and current.open_calls()):
            if current is None or current.said or current.calls:
                if current is not None:
                    yield current
                current = _Round()
                count += 1
                if count > MAX_ROUNDS:
                    raise RejectedError("too_large", f"a chat may have {MAX_ROUNDS} questions")
            current.asked.append(turn.text)
            current.images += turn.images
        elif current is None:
            raise RejectedError("wrong_turns", f"the {turn.role} speaks before the user does")
        else:
            _continue_round(current, turn)
    if current is None:
        raise RejectedError("wrong_turns", "no turn is the user's")
    yield current


def _continue_round(current: _Round, turn: Turn) -> None:
    if turn.role == "assistant":
        thought, tagged = split_tags(turn.text, CALL_OPEN, CALL_CLOSE)
        calls = [*turn.calls, *(_parse_call(text) for text in tagged)]
        if calls:
            current.add_calls(thought, calls)
        elif turn.text:
            current.said.append(turn.text)
    elif turn.role == "call":
        outside, tagged = split_tags(turn.text, CALL_OPEN, CALL_CLOSE)
        parsed = [_parse_call(text) for text in tagged or [outside]]
        calls = [one for value in parsed for one in (value if isinstance(value, list) else [value])]
        current.add_calls(outside if tagged else "", calls)
    else:
        outside, tagged = split_tags(turn.text, RESPONSE_OPEN, RESPONSE_CLOSE)
        if tagged and outside:
            raise RejectedError("wrong_turns", f"text stands beside a result: {show(outside)}")
        if len(tagged) > 1 and turn.images:
            raise RejectedError("image_count", "a turn with several results may hold no image")
        for text in tagged or [outside]:
            current.add_result(text, turn.images, turn.call_id)


def _parse_call(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise RejectedError("broken_call", f"a call is not JSON: {error}") from error


def read_call(raw: Any) -> tuple[Call, str]:
    """A call in OpenAI's form or as `{"name": ..., "arguments": ...}`, and its id."""
    if not isinstance(raw, dict):
        raise RejectedError("broken_call", f"a call must be an object, got {show(raw)}")
    inner = raw.get("function") if raw.get("function") is not None else raw
    if not isinstance(inner, dict):
        raise RejectedError(
            "broken_call", f"a call's function must be an object, got {show(inner)}"
        )
    call_id = raw.get("id")
    operation = check_operation(inner.get("name"))
    arguments = check_arguments(field(inner, "arguments"))
    return Call("", operation, arguments), call_id if isinstance(call_id, str) else ""


def split_tags(text: str, opening: str, closing: str) -> tuple[str, list[str]]:
    """What stands outside of a pair of tags, and each of the texts inside.

    Found tag by tag: the obvious expression takes quadratic time on unclosed tags.

    Raises:
        RejectedError: when a tag is not closed.
    """
    outside, inside = [], []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start)
        if end < 0:
            raise RejectedError("markup", f"{opening} is not closed by {closing}")
        outside.append(text[position:start].strip())
        inside.append(text[start + len(opening) : end].strip())
        position = end + len(closing)
    outside.append(text[position:].strip())
    return "\n".join(piece for piece in outside if piece), inside


def split_answer(text: str) -> tuple[str, str]:
    """Conclusion and answer: the tagged answer and the text around it, or the text as answer."""
    outside, answers = split_tags(text, "<answer>", "</answer>")
    if len(answers) > 1:
        raise RejectedError("markup", f"a reply may have one <answer>, got {len(answers)}")
    conclusion, answer = (outside, answers[0]) if answers else ("", outside)
    return check_said(conclusion, "a conclusion"), check_said(answer, "an answer")
