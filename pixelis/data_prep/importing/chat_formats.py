"""Read a chat format: `messages` or `conversations` in any dialect become plain turns.

A turn has a role, a text, images and calls; `chat_rounds` divides turns into questions. To accept
another name of a role, add it to ROLES.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_text, get_field, show

MAX_TURNS = 512
MARK = "<image>"

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
    """One turn of a chat.

    Attributes:
        role: `system`, `user`, `assistant`, `call` (its text is a call) or `tool`.
        text: its texts, joined.
        references: references to its images; None stands for the next image of the record's list.
        calls: its `tool_calls`, unchanged from the record.
        call_id: in a tool's turn, the id of the call that it answers.
        images: the images, once loaded.
    """

    role: str
    text: str
    references: tuple[Any, ...] = ()
    calls: tuple[Any, ...] = ()
    call_id: str = ""
    images: tuple[Image.Image, ...] = ()


def read_turns(data: Mapping[str, Any], folder: Path, *, marked: bool) -> list[Turn]:
    """Read the turns of a record, each with its images loaded.

    Args:
        data: a record with `messages`, `conversations`, or `prompt` and `completion`.
        folder: the folder of the images.
        marked: whether `<image>` in a text always means an image; if False, only when the record
            lists images and no turn has a part for them.
    """
    turns = [_read_turn(raw, number) for number, raw in enumerate(_raw_turns(data), 1)]
    listed = as_references(get_field(data, "images"))
    references = [reference for turn in turns for reference in turn.references]
    if not listed and all(reference is None for reference in references):
        raise RejectedError("no_image", "the record names no image")
    typed = sum(reference is None for reference in references)
    marks = sum(turn.text.count(MARK) for turn in turns)
    use_marks = marked or (marks > 0 and bool(listed) and not typed)
    total = typed + marks if use_marks else typed
    if listed and not total and not marked:
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
        turns[first] = replace(turns[first], references=(*listed, *turns[first].references))
    elif total != len(listed):
        raise RejectedError(
            "image_count", f"the turns have {total} places for images, the record {len(listed)}"
        )
    else:
        remaining = iter(listed)
        turns = [_fill(_read_marks(t) if use_marks else t, remaining) for t in turns]
    return _with_images(turns, folder)


def _raw_turns(data: Mapping[str, Any]) -> list[Any]:
    turns: Any = None
    if data.get("conversations") is not None:
        turns = data["conversations"]
    elif data.get("messages") is not None:
        turns = data["messages"]
    elif isinstance(data.get("prompt"), list) and isinstance(data.get("completion"), list):
        turns = data["prompt"] + data["completion"]  # TRL's other form
    if not isinstance(turns, list) or not turns:
        raise RejectedError("wrong_type", f"a chat must be a list of turns, got {show(turns)}")
    if len(turns) > MAX_TURNS:
        raise RejectedError("too_large", f"a chat may have {MAX_TURNS} turns, got {len(turns)}")
    return turns


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
    calls = raw.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise RejectedError("broken_call", f"tool_calls must be a list, got {show(calls)}")
    if calls and role != "assistant":
        raise RejectedError("wrong_turns", f"turn {number}: only an assistant makes calls")
    content = raw.get("content") if raw.get("content") is not None else raw.get("value")
    texts: list[str] = []
    references: list[Any] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict):
            _read_part(part, texts, references)
        elif isinstance(part, str):
            texts.append(part)
        elif part is not None:
            raise RejectedError(
                "wrong_type", f"turn {number}: content must be a text or parts, got {show(part)}"
            )
    if references and role not in ("user", "tool"):
        raise RejectedError("wrong_turns", f"turn {number}: a turn of {name} may show no image")
    call_id = raw.get("tool_call_id")
    return Turn(
        role,
        check_text("\n".join(texts), f"turn {number}"),
        tuple(references),
        tuple(calls or ()),
        call_id if isinstance(call_id, str) else "",
    )


def _read_part(part: dict[str, Any], texts: list[str], references: list[Any]) -> None:
    kind = part.get("type")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise RejectedError("wrong_type", f"a text part has the text {show(part.get('text'))}")
        texts.append(part["text"])
    elif kind in ("image", "image_url"):
        names = ("image", "path", "url", "image_url", "bytes")
        given = [part[name] for name in names if part.get(name) is not None]
        if len(given) > 1:
            raise RejectedError("wrong_type", "an image part names more than one image")
        reference = given[0] if given else None
        if isinstance(reference, dict) and reference.get("url") is not None:
            reference = reference["url"]
        references.append(reference)
    else:
        raise RejectedError("wrong_type", f"a part must be text or image, got {show(kind)}")


def _read_marks(turn: Turn) -> Turn:
    """Replace the `<image>` marks of a turn's text by placeholders."""
    before, *others = turn.text.split(MARK)
    if others and turn.role not in ("user", "tool"):
        raise RejectedError("wrong_turns", f"the {turn.role} may show no image, it has {MARK}")
    text = before.rstrip(" \t")
    for other in others:
        after = other.strip(" \t")
        if not text or text.endswith("\n"):
            after = after.removeprefix("\n")
        elif after and not after.startswith("\n"):
            after = " " + after
        text += after
    # The images of the marks come after those that the turn names itself.
    return replace(turn, text=text.strip(), references=turn.references + (None,) * len(others))


def _fill(turn: Turn, listed: Iterator[Any]) -> Turn:
    references = [next(listed) if r is None else r for r in turn.references]
    return replace(turn, references=tuple(references))


def _with_images(turns: list[Turn], folder: Path) -> list[Turn]:
    # All images in one call, because the limits are per record.
    loaded = iter(load_images([r for turn in turns for r in turn.references], folder))
    return [replace(turn, images=tuple(next(loaded) for _ in turn.references)) for turn in turns]
