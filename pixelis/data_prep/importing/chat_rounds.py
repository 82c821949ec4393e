"""Divide the turns of a chat into rounds: a question, its calls and results, its answer."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.data_prep.importing.chat_formats import Turn, read_turns
from pixelis.data_prep.importing.raw_example import (
    MAX_STEPS,
    RawCall,
    RawExample,
    read_call,
    read_result,
)
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import (
    MAX_CHARACTERS,
    check_assistant_text,
    parse_json,
    show,
)

MAX_ROUNDS = 64


def read_messages(data: Mapping[str, Any], folder: Path) -> list[RawExample]:
    """Read a record with `messages` or `prompt` and `completion`: one example per question."""
    return _read_rounds(read_turns(data, folder, marked=False))


def read_conversations(data: Mapping[str, Any], folder: Path) -> list[RawExample]:
    """Read a record with `conversations`, in whose texts `<image>` marks the images."""
    return _read_rounds(read_turns(data, folder, marked=True))


def _read_rounds(turns: list[Turn]) -> list[RawExample]:
    rounds = list(_divide(turns))
    examples: list[RawExample] = []
    images: tuple[Image.Image, ...] = ()
    earlier = ""
    for current in rounds:
        images += tuple(current.images)
        conclusion, answer = split_answer("\n".join(current.reply))
        question = current.question()
        if not answer:
            raise RejectedError("no_answer", f"the question has no answer: {show(question)}")
        # A round without its own question is rejected later; earlier text must not replace it.
        with_earlier = f"{earlier}{question}" if question else ""
        if len(with_earlier) > MAX_CHARACTERS:
            raise RejectedError(
                "too_large",
                f"a question and what was said before may have {MAX_CHARACTERS} "
                f"characters, got {len(with_earlier)}",
            )
        calls = tuple(current.calls)
        examples.append(RawExample(with_earlier, images, calls, conclusion, answer))
        earlier += f"Earlier: {question}\nAnswer: {answer}\n"
    return examples


class _Round:
    """A question with its calls and reply, filled turn by turn."""

    def __init__(self) -> None:
        self.user_texts: list[str] = []
        self.images: list[Image.Image] = []
        self.calls: list[RawCall] = []
        self.answered: set[int] = set()  # positions of calls that already have their result
        self.reply: list[str] = []  # the assistant's texts since the last call

    def question(self) -> str:
        return "\n".join(text for text in self.user_texts if text)

    def add_calls(self, thought: str, raw: list[Any]) -> None:
        thought = "\n".join(text for text in (*self.reply, thought) if text)
        self.reply = []
        for each in raw:
            call = read_call(each)
            self.calls.append(replace(call, thought=check_assistant_text(thought, "a thought")))
            thought = ""
        if len(self.calls) > MAX_STEPS:
            raise RejectedError("too_large", f"a trajectory may have {MAX_STEPS} steps")

    def open_calls(self) -> list[int]:
        return [i for i in range(len(self.calls)) if i not in self.answered]

    def add_result(self, text: str, images: tuple[Image.Image, ...], call_id: str = "") -> None:
        waiting = self.open_calls()
        if not waiting or self.reply:
            raise RejectedError("wrong_turns", f"a result without a call: {show(text)}")
        if len(images) > 1:
            raise RejectedError("image_count", f"a result may have one image, got {len(images)}")
        named = (i for i in waiting if call_id and self.calls[i].call_id == call_id)
        position = next(named, waiting[0])
        image = images[0] if images else None
        call = self.calls[position]
        self.calls[position] = replace(call, result=read_result(text), image=image)
        self.answered.add(position)


def _divide(turns: list[Turn]) -> Iterator[_Round]:
    current: _Round | None = None
    count = 0
    for turn in turns:
        if turn.role == "system":  # replaced by our own, which describes the operations
            continue
        responds = turn.role == "user" and RESPONSE_OPEN in turn.text
        if turn.role == "user" and not (responds and current and current.open_calls()):
            if current is None or current.reply or current.calls:
                if current is not None:
                    yield current
                current = _Round()
                count += 1
                if count > MAX_ROUNDS:
                    raise RejectedError("too_large", f"a chat may have {MAX_ROUNDS} questions")
            current.user_texts.append(turn.text)
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
            current.reply.append(turn.text)
    elif turn.role == "call":
        outside, tagged = split_tags(turn.text, CALL_OPEN, CALL_CLOSE)
        parsed = [_parse_call(text) for text in tagged or [outside]]
        calls = [
            each for value in parsed for each in (value if isinstance(value, list) else [value])
        ]
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


def split_tags(text: str, opening: str, closing: str) -> tuple[str, list[str]]:
    """Split a text into the text outside of a pair of tags, and each text inside.

    It searches tag by tag, since the obvious regular expression is quadratic on unclosed tags.
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
    """Split a reply into conclusion and answer; without <answer> all text is the answer."""
    outside, answers = split_tags(text, "<answer>", "</answer>")
    if len(answers) > 1:
        raise RejectedError("markup", f"a reply may have one <answer>, got {len(answers)}")
    conclusion, answer = (outside, answers[0]) if answers else ("", outside)
    return (
        check_assistant_text(conclusion, "a conclusion"),
        check_assistant_text(answer, "an answer"),
    )
