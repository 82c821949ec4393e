"""The spans of a case's trace: one per turn with its messages, and one per operation.

Spans of type CHAT_MODEL hold messages in OpenAI's form, which trace views show as a conversation.
In place of image URLs they hold PIL images, which the tracker replaces.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.data.chat import Message, prompt_messages, response_message
from pixelis.data_prep.regions import SIDE, LabelledRegion, draw_regions, find_regions
from pixelis.evaluation.cases import Case
from pixelis.evaluation.turns import CALL, Turn

# Further frames of a question are left out of its trace.
MAX_IMAGES = 8


def build_spans(case: Case) -> list[dict[str, Any]]:
    """Return the spans of the adapter's rollout: a root, then one per turn and per operation.

    Returns:
        Dicts with `name`, `type` (of MLflow's SpanType), `inputs`, `outputs`, `seconds` (wall time;
        the root has the sum) and, for a failed operation, `error`.
    """
    example, rollout = case.example, case.rollout
    images = example.images[:MAX_IMAGES]
    messages = prompt_messages(example.question, images)
    outputs = {"answer": rollout.answer, "truth": example.ground_truth, "verdict": case.verdict}
    outputs |= {"outcome": rollout.outcome, **({"why": case.why} if case.why else {})}
    seconds = sum(turn.seconds + turn.operation_seconds for turn in rollout.turns)
    inputs: dict[str, Any] = {"question": example.question, "images": list(images)}
    spans = [_span("rollout", "AGENT", inputs, outputs, seconds)]
    for number, turn in enumerate(rollout.turns, 1):
        reply = Message("assistant", (turn.text,))
        inputs = {"messages": [_as_openai(message) for message in messages]}
        answer = {"choices": [{"message": _as_openai(reply)}]}
        spans.append(_span(f"turn {number}", "CHAT_MODEL", inputs, answer, turn.seconds))
        messages.append(reply)
        if turn.response is not None:
            if turn.kind == CALL:
                spans.append(_operation(number, turn, images))
            messages.append(response_message(turn.response, turn.image))
    return spans


def _span(
    name: str, kind: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    return {"name": name, "type": kind, "inputs": inputs, "outputs": outputs, "seconds": seconds}


def _as_openai(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": "".join(map(str, message.parts))}
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part}}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _operation(number: int, turn: Turn, images: Sequence[Image.Image]) -> dict[str, Any]:
    """Return a call's span with arguments, marked frames, result and image."""
    result: Mapping[str, Any] = turn.result or {}
    outputs: dict[str, Any] = {"result": dict(result)}
    if turn.image is not None:
        outputs["image"] = turn.image
    inputs: dict[str, Any] = {"arguments": turn.arguments}
    if looked_at := marked_frames([(number, turn)], images):
        inputs["looked_at"] = list(looked_at.values())
    span = _span(turn.operation or "call", "TOOL", inputs, outputs, turn.operation_seconds)
    return span | ({"error": str(result["error"])} if "error" in result else {})


def marked_frames(
    turns: Sequence[tuple[int, Turn]], images: Sequence[Image.Image], *, side: int = SIDE
) -> dict[int, Image.Image]:
    """Return the frames (from 1) that calls look at, marked with the numbers of the turns."""
    marked = {}
    for frame, image in enumerate(images, 1):
        marks = [
            LabelledRegion(region, str(number))
            for number, turn in turns
            if turn.kind == CALL
            for region in find_regions(turn.arguments, turn.result, frame)
        ]
        if marks:
            marked[frame] = draw_regions(image, marks, side=side)
    return marked
