"""Read a chat: `messages` or `conversations` in any dialect become one CoTA record per question.

First every turn becomes a `Turn` of the user or the assistant, with calls and results in our own
tags; then the turns are divided into rounds: a question, its calls and results, its answer. To
accept another name of a role, add it to ROLES.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.values import (
    RejectedError,
    check_text,
    get_field,
    parse_json,
    show,
)

MAX_TURNS = 512
MAX_ROUNDS = 64
MARK = "<image>"

# Role -> who speaks in our own template, and in which tags.
TAGGED = {
    "call": ("assistant", CALL_OPEN, CALL_CLOSE),
    "tool": ("user", RESPONSE_OPEN, RESPONSE_CLOSE),
}
# Name of a role in files -> our role.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "call",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}


@dataclass(frozen=True)
class Turn:
    """One turn of a chat."""

    role: str  # `system`, `user` or `assistant`
    text: str  # its texts, joined
    # Its images; before they are loaded, their references, of which None stands for the next image
    # of the record's list.
    images: tuple[Any, ...] = ()
    calls: tuple[Any, ...] = ()  # its `tool_calls`, unchanged from the record
    call_id: Any = None  # of a result, the id of the call that it answers


def read_chat(data: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Read `messages`, `conversations` or `prompt`, `completion`: a CoTA record per question."""
    rounds = list(_divide(_read_turns(data, folder)))
    if len(rounds) > MAX_ROUNDS:
        raise RejectedError(
            "too_large", f"a chat may have {MAX_ROUNDS} questions, got {len(rounds)}"
        )
    records: list[dict[str, Any]] = []
    images: list[Image.Image] = []
    earlier = ""
    for each in rounds:
        images = images + each.images
        question = "\n".join(filter(None, each.questions))
        conclusion, answer = split_answer("\n".join(each.reply))
        record = {
            # Text from before must not replace a question that a round lacks.
            "question": f"{earlier}{question}" if question else "",
            "images": images,
            "trajectory": each.steps,
            "conclusion": conclusion,
            "answer": answer,
        }
        records.append(record)
        earlier += f"Earlier: {question}\nAnswer: {answer}\n"
    return records


def _read_turns(data: Mapping[str, Any], folder: Path) -> list[Turn]:
    """Read the turns of a record, each with its images loaded."""
    raw = data.get("conversations")
    raw = get_field(data, "messages") if raw is None else raw
    if raw is None and all(isinstance(data.get(key), list) for key in ("prompt", "completion")):
        raw = data["prompt"] + data["completion"]  # TRL's other form
    if not isinstance(raw, list) or not raw:
        raise RejectedError("wrong_type", f"a chat must be a list of turns, got {show(raw)}")
    if len(raw) > MAX_TURNS:
        raise RejectedError("too_large", f"a chat may have {MAX_TURNS} turns, got {len(raw)}")
    turns = [_read_turn(turn, number) for number, turn in enumerate(raw, 1)]
    turns = _place_images(turns, as_references(get_field(data, "images")))
    # All images in one call, because the limits are per record.
    loaded = iter(load_images([image for turn in turns for image in turn.images], folder))
    return [replace(turn, images=tuple(next(loaded) for _ in turn.images)) for turn in turns]


def _read_turn(raw: Any, number: int) -> Turn:
    if not isinstance(raw, dict):
        raise RejectedError("wrong_type", f"turn {number} must be an object, got {show(raw)}")
    name = raw.get("role") if raw.get("role") is not None else raw.get("from")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        choices = ", ".join(ROLES)
        raise RejectedError(
            "wrong_type", f"turn {number}: the role must be one of {choices}, got {show(name)}"
        )
    calls = raw.get("tool_calls") or []
    if not calls and raw.get("function_call") is not None:  # the older form, for one call
        calls = [raw["function_call"]]
    if not isinstance(calls, list):
        raise RejectedError("broken_call", f"tool_calls must be a list, got {show(calls)}")
    if calls and role != "assistant":
        raise RejectedError("wrong_turns", f"turn {number}: only an assistant makes calls")
    content = raw.get("content") if raw.get("content") is not None else raw.get("value")
    texts: list[str] = []
    images: list[Any] = []
    for part in content if isinstance(content, list) else [content]:
        text, kind = part, None
        if isinstance(part, dict):  # Qwen writes parts without a type, such as {"image": "a.png"}
            named = [name for name in ("text", "image") if part.get(name) is not None]
            kind = part.get("type") or (named[0] if len(named) == 1 else None)
            text = part.get("text") if kind == "text" else None
        if isinstance(part, dict) and kind in ("image", "image_url"):
            images.append(_read_image(part))
        elif isinstance(text, str):
            texts.append(text)
        elif part is not None:
            raise RejectedError(
                "wrong_type", f"turn {number}: content must be texts and images, got {show(part)}"
            )
    text = check_text("\n".join(texts), f"turn {number}")
    role, opening, closing = TAGGED.get(role, (role, "", ""))
    if opening not in text:
        text = f"{opening}{text}{closing}"
    return Turn(role, text, tuple(images), tuple(calls), raw.get("tool_call_id"))


def _read_image(part: dict[str, Any]) -> Any:
    """Return the reference of an image part; None if it stands for a listed image."""
    names = ("image", "path", "url", "image_url", "bytes")
    given = [part[name] for name in names if part.get(name) is not None]
    if len(given) > 1:
        raise RejectedError("wrong_type", "an image part names more than one image")
    reference = given[0] if given else None
    if isinstance(reference, dict) and reference.get("url") is not None:
        return reference["url"]
    return reference


def _place_images(turns: list[Turn], listed: list[Any]) -> list[Turn]:
    """Give every turn its images: its own, and the record's list at its parts or `<image>` marks.

    Without a place for them the listed images belong to the first question.
    """
    if not listed and all(image is None for turn in turns for image in turn.images):
        raise RejectedError("no_image", "the record names no image")
    if listed and not any(None in turn.images for turn in turns):
        turns = [_read_marks(turn) for turn in turns]
    for number, turn in enumerate(turns, 1):
        if turn.images and turn.role != "user":
            raise RejectedError(
                "wrong_turns", f"turn {number}: the {turn.role} may show no image or {MARK}"
            )
    places = sum(image is None for turn in turns for image in turn.images)
    if listed and not places:
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
        turns[first] = replace(turns[first], images=(*listed, *turns[first].images))
        return turns
    if places != len(listed):
        raise RejectedError(
            "image_count", f"the turns have {places} places for images, the record {len(listed)}"
        )
    left = iter(listed)
    return [
        replace(turn, images=tuple(next(left) if image is None else image for image in turn.images))
        for turn in turns
    ]


def _read_marks(turn: Turn) -> Turn:
    """Replace the `<image>` marks of a turn's text by places after its own images."""
    before, *others = turn.text.split(MARK)
    text = before.rstrip(" \t")
    for other in others:
        after = other.strip(" \t")
        if not text or text.endswith("\n"):
            after = after.removeprefix("\n")
        elif after and not after.startswith("\n"):
            after = " " + after
        text += after
    return replace(turn, text=text.strip(), images=turn.images + (None,) * len(others))


@dataclass
class _Round:
    """A question with its calls and reply, filled turn by turn."""

    questions: list[str] = field(default_factory=list)  # the user's texts
    images: list[Image.Image] = field(default_factory=list)  # the images of the question
    # The calls as CoTA steps, with the results that the record has.
    steps: list[dict[str, Any]] = field(default_factory=list)
    # Position in `steps` -> id of each call that has no result yet.
    waiting: dict[int, Any] = field(default_factory=dict)
    reply: list[str] = field(default_factory=list)  # the assistant's texts since the last call

    @property
    def is_called(self) -> bool:
        """Whether the assistant called last, and has no result yet."""
        return bool(self.waiting) and not self.reply

    def add_calls(self, text: str, calls: list[Any]) -> None:
        """Add calls, of which the first gets all text since the last call as its thought."""
        thought = "\n".join(filter(None, (*self.reply, text)))
        self.reply = []
        for raw in calls:
            call = raw
            if isinstance(raw, dict) and raw.get("function") is not None:  # OpenAI's form
                call = raw["function"]
            if not isinstance(call, dict):
                raise RejectedError("broken_call", f"a call must be an object, got {show(call)}")
            self.waiting[len(self.steps)] = raw.get("id")
            arguments = get_field(call, "arguments")
            step = {"thought": thought, "operation": call.get("name"), "arguments": arguments}
            self.steps.append(step)
            thought = ""

    def add_result(self, text: str, images: tuple[Image.Image, ...], call_id: Any) -> None:
        """Add a result to the call of the id, or to the first one that waits for its result."""
        if not self.is_called:
            raise RejectedError("wrong_turns", f"a result without a call: {show(text)}")
        same = (at for at, known in self.waiting.items() if known == call_id)
        position = next(same, next(iter(self.waiting)))
        del self.waiting[position]
        self.steps[position] |= {"result": text, "image": [*images]}


def _divide(turns: list[Turn]) -> Iterator[_Round]:
    """Yield the rounds; system turns are left out, since ours describes the operations."""
    current: _Round | None = None
    for turn in turns:
        # Pixel-Reasoner shows a result in a plain turn: an image right after the call.
        shows_result = current is not None and current.is_called and bool(turn.images)
        if turn.role == "user" and RESPONSE_OPEN not in turn.text and not shows_result:
            if current is None or current.reply or current.steps:
                if current is not None:
                    yield current
                current = _Round()
            current.questions.append(turn.text)
            current.images += turn.images
        elif turn.role != "system":
            if current is None:
                raise RejectedError("wrong_turns", f"the {turn.role} answers before any question")
            _continue_round(current, turn)
    if current is None:
        raise RejectedError("wrong_turns", "no turn is the user's")
    yield current


def _continue_round(current: _Round, turn: Turn) -> None:
    if turn.role == "user":
        outside, tagged = split_tags(turn.text, RESPONSE_OPEN, RESPONSE_CLOSE)
        if not tagged:
            outside, tagged = "", [outside]
        if outside:
            raise RejectedError("wrong_turns", f"text stands beside a result: {show(outside)}")
        shown = [turn.images] * len(tagged)
        if len(tagged) > 1 and len(turn.images) == len(tagged):
            shown = [(image,) for image in turn.images]
        elif len(tagged) > 1 and turn.images:
            raise RejectedError(
                "image_count", "a turn with several results may hold no image, or one for each"
            )
        for text, images in zip(tagged, shown, strict=True):
            current.add_result(text, images, turn.call_id)
        return
    outside, tagged = split_tags(turn.text, CALL_OPEN, CALL_CLOSE)
    calls = [*turn.calls]
    for text in tagged:
        try:
            call = parse_json(text)
        except ValueError as error:
            raise RejectedError("broken_call", f"a call is not JSON: {error}") from error
        calls += call if isinstance(call, list) else [call]
    if calls:
        current.add_calls(outside, calls)
    elif outside:
        current.reply.append(outside)


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
    return "\n".join(filter(None, outside)), inside


def split_answer(text: str) -> tuple[str, str]:
    """Split a reply into conclusion and answer; without <answer> all text is the answer."""
    outside, answers = split_tags(text, "<answer>", "</answer>")
    if len(answers) > 1:
        raise RejectedError("markup", f"a reply may have one <answer>, got {len(answers)}")
    return (outside, answers[0]) if answers else ("", outside)
