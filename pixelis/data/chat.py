"""The chat format: write calls, results and answers as messages, and parse them.

Calls are text in the assistant's turn and results are user turns (`<tool_response>`), the Qwen
convention, because many chat templates drop `tool_calls` without a warning. Any processor with a
chat template can render these messages.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pixelis.data.example import Example
from pixelis.operations import OPERATIONS

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
RESPONSE_OPEN, RESPONSE_CLOSE = "<tool_response>", "</tool_response>"
CALL = re.compile(re.escape(CALL_OPEN) + r"(.*?)" + re.escape(CALL_CLOSE), re.DOTALL)
MAX_CALL_DEPTH = 32
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Message:
    """One turn: text and images in order, and whether it is supervised (has a loss)."""

    role: str
    parts: tuple[str | Image.Image, ...]
    supervised: bool = False

    @property
    def images(self) -> list[Image.Image]:
        """The turn's images, in order."""
        return [part for part in self.parts if not isinstance(part, str)]


def system_prompt() -> str:
    """Return the signatures of all operations on one line."""
    return f"Operations: {' '.join(o.signature for o in OPERATIONS.values())}"


def format_call(operation: str, arguments: Mapping[str, Any]) -> str:
    """Write a call as text of the assistant."""
    call = json.dumps({"name": operation, "arguments": dict(arguments)})
    return f"{CALL_OPEN}\n{call}\n{CALL_CLOSE}"


def format_step(thought: str, operation: str, arguments: Mapping[str, Any]) -> str:
    """Write the assistant's turn for one step."""
    return f"{thought}\n{format_call(operation, arguments)}"


def format_answer(conclusion: str, answer: str) -> str:
    """Write the assistant's last turn."""
    tagged = f"<answer>{answer}</answer>"
    return f"{conclusion}\n{tagged}" if conclusion else tagged


def response_message(result: Mapping[str, Any], image: Image.Image | None) -> Message:
    """Return the user turn with an observation, its image inside the response."""
    opening = f"{RESPONSE_OPEN}\n{json.dumps(dict(result))}"
    if image is None:
        return Message("user", (f"{opening}\n{RESPONSE_CLOSE}",))
    return Message("user", (f"{opening}\n", image, f"\n{RESPONSE_CLOSE}"))


def prompt_messages(question: str, images: Sequence[Image.Image]) -> list[Message]:
    """Return the messages before the assistant's first turn."""
    return [Message("system", (system_prompt(),)), Message("user", (*images, question))]


def example_messages(example: Example) -> list[Message]:
    """Return the complete conversation of an example; planted wrong steps are not supervised."""
    messages = prompt_messages(example.question, example.images)
    for step in example.trajectory:
        text = format_step(step.thought, step.operation, step.arguments)
        messages.append(Message("assistant", (text,), supervised=step.supervised))
        messages.append(response_message(step.result, step.image))
    final = format_answer(example.conclusion, example.answer)
    messages.append(Message("assistant", (final,), supervised=True))
    return messages


@dataclass(frozen=True)
class Reply:
    """A parsed turn of the assistant: a call, an answer, or neither (`error` says why)."""

    operation: str = ""
    arguments: Any = None
    answer: str | None = None
    error: str = ""


def _is_deep(value: Any) -> bool:
    """Return whether lists and objects are nested more than MAX_CALL_DEPTH deep (no recursion)."""
    level = [value]
    for _ in range(MAX_CALL_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, dict | list) for inner in level)


def parse_reply(text: str) -> Reply:
    """Parse a generated turn; a call takes precedence over an answer."""
    calls = CALL.findall(text)
    if len(calls) > 1:
        return Reply(error=f"one call a turn, got {len(calls)}")
    if calls:
        try:
            call = json.loads(calls[0])
        except (ValueError, RecursionError):  # ValueError: also a number of 5,000 digits
            return Reply(error="the call is not valid JSON")
        if _is_deep(call):  # json.dumps and == would exceed the recursion limit
            return Reply(error=f"a call may be nested {MAX_CALL_DEPTH} deep")
        if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
            return Reply(error='a call is {"name": ..., "arguments": {...}}')
        return Reply(operation=str(call["name"]), arguments=call["arguments"])
    answers = _ANSWER.findall(text)
    if answers:
        return Reply(answer=answers[-1].strip())
    return Reply(error="neither a call nor an answer")


def prose_of(text: str) -> str:
    """Return the text of an assistant's turn before its call or its answer."""
    return text.partition(CALL_OPEN)[0].partition("<answer>")[0]
