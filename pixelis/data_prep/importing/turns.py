"""Read one turn of a chat, in any chat format: who speaks, texts, thoughts, images and calls.

To accept another name of a role, add it to ROLES; another type of part, to PARTS.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.data_prep.importing.question_answer import THOUGHTS
from pixelis.data_prep.importing.values import (
    UNSUPPORTED,
    RejectedError,
    check_object,
    check_text,
    read_list,
    show,
)

# Tags around the assistant's thought, as models write them.
THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning")
VIDEO = "<video>"
# Role -> who speaks in our own template, and in which tags.
TAGGED = {
    "call": ("assistant", CALL_OPEN, CALL_CLOSE),
    "tool": ("user", RESPONSE_OPEN, RESPONSE_CLOSE),
}
# Name of a role in files, in lower case -> our role.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
# Keys of a turn, or of a part, that say whether its tokens count in the loss: 0 or false, 1 or
# true; `masked` has the opposite meaning.
TRAINED = ("weight", "loss", "loss_scale", "train", "training", "trainable", "masked")
# Keys of a turn whose parts may have such a key. If one part is not trained, the turn is not.
MARKED_PARTS = ("content", "value", "train_detail")
# Keys of a part that hold its text, or its image.
TEXTS = ("text", "value", "content", *THOUGHTS)
IMAGES = ("image", "path", "url", "image_url", "bytes", "source", "data", "base64")
# Type of a part -> what it holds.
PARTS = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("thinking", "reasoning"), "thought"),
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("video", "video_url", "audio", "audio_url", "input_audio"), "unsupported"),
}


@dataclass(frozen=True)
class Turn:
    """One turn of a chat."""

    role: str  # `system`, `user` or `assistant`
    text: str  # its texts, joined
    # Its images; before they are loaded, their references. None means the next image of the
    # record's list.
    images: tuple[Any, ...] = ()
    calls: tuple[Any, ...] = ()  # its `tool_calls`, unchanged from the record
    call_id: Any = None  # id of the call that this result answers
    thought: str = ""  # the assistant's marked reasoning
    is_trained: bool = True  # False: marked as context only


def read_turn(raw: Any, number: int) -> Turn:
    """Read a turn without loading its images; the number is used in error messages."""
    if not isinstance(raw, dict):
        raise RejectedError("wrong_type", f"turn {number} must be an object, got {show(raw)}")
    name = raw.get("role") if raw.get("role") is not None else raw.get("from")
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        choices = ", ".join(ROLES)
        raise RejectedError(
            "wrong_type", f"turn {number}: the role must be one of {choices}, got {show(name)}"
        )
    calls = read_list(raw.get("tool_calls")) or []
    if not calls and raw.get("function_call") is not None:  # the older form, for one call
        calls = [raw["function_call"]]
    if not isinstance(calls, list):
        raise RejectedError("broken_call", f"tool_calls must be a list, got {show(calls)}")
    if calls and role != "assistant":
        raise RejectedError("wrong_turns", f"turn {number}: only an assistant makes calls")
    content = raw.get("content") if raw.get("content") is not None else raw.get("value")
    if isinstance(content, dict) and role in TAGGED and "type" not in content:
        content = json.dumps(check_object(content, f"turn {number}"))  # a call or a result
    held: dict[str, list[Any]] = {"text": [], "thought": [], "image": []}
    held["thought"] += [raw[name] for name in THOUGHTS if isinstance(raw.get(name), str)]
    for part in content if isinstance(content, list) else [content]:
        if part is not None:
            kind, value = _read_part(part, number)
            held[kind].append(value)
    text = check_text("\n".join(held["text"]), f"turn {number}")
    thoughts = [check_text(each, f"turn {number}") for each in held["thought"]]
    if role in ("assistant", "call"):
        for tag in THOUGHT_TAGS:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if closing in text and opening not in text:  # the template wrote the opening tag
                text = opening + text
            text, tagged = split_tags(text, opening, closing)
            thoughts += tagged
    elif role == "user" and VIDEO in text:
        raise RejectedError("unsupported", f"turn {number}: {UNSUPPORTED}")
    role, opening, closing = TAGGED.get(role, (role, "", ""))
    if opening not in text:
        text = f"{opening}{text}{closing}"
    return Turn(
        role,
        text,
        tuple(held["image"]),
        tuple(calls),
        raw.get("tool_call_id"),
        thought=join_lines(thoughts),
        is_trained=_is_trained(raw, number),
    )


def _is_trained(raw: Mapping[str, Any], number: int) -> bool:
    given = [name for name in TRAINED if raw.get(name) is not None]
    for name in given:
        if raw[name] not in (0, 1):
            rule = f"turn {number}: {name} must be 0 or 1, false or true"
            raise RejectedError("wrong_type", f"{rule}, got {show(raw[name])}")
    lists = [raw[name] for name in MARKED_PARTS if isinstance(raw.get(name), list)]
    parts = [part for each in lists for part in each if isinstance(part, dict)]
    is_marked = any(bool(raw[name]) == (name == "masked") for name in given)
    return not is_marked and all(_is_trained(part, number) for part in parts)


def _read_part(part: Any, number: int) -> tuple[str, Any]:
    """Return what a part of a turn holds (`text`, `thought`, `image`), and its value."""
    if isinstance(part, str):
        return "text", part
    if isinstance(part, dict):
        text = next((part[name] for name in TEXTS if isinstance(part.get(name), str)), None)
        kind: Any = part.get("type")
        if kind is None:  # Qwen writes {"image": "a.png"} and {"video": "a.mp4"}
            media = [name for name in ("video", "audio") if part.get(name) is not None]
            shows = any(part.get(name) is not None for name in IMAGES)
            kind = None if shows and text is not None else "image" if shows else "text"
            kind = media[0] if media else kind
        holds = PARTS.get(kind) if isinstance(kind, str) else None
        if holds == "unsupported":
            raise RejectedError("unsupported", f"turn {number}: {UNSUPPORTED}")
        if holds == "image":
            return "image", _read_image(part)
        if holds is not None and text is not None:
            return holds, text
    raise RejectedError(
        "wrong_type", f"turn {number}: content must be texts and images, got {show(part)}"
    )


def _read_image(part: dict[str, Any]) -> Any:
    """Return the reference of an image part; None if it stands for a listed image."""
    given = [part[name] for name in (*IMAGES, "value") if part.get(name) is not None]
    if len(given) > 1:
        raise RejectedError("wrong_type", "an image part names more than one image")
    return given[0] if given else None


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
    return join_lines(outside), inside


def join_lines(texts: Iterable[str]) -> str:
    """Join the texts that are not empty, each on a line of its own."""
    return "\n".join(filter(None, texts))
