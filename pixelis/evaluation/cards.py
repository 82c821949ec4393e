"""Cases as the report shows them: short texts, and images small enough for one file."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pixelis.data.chat import CALL_OPEN
from pixelis.data.example import Example
from pixelis.data_prep.regions import REFERENCE_COLOUR, LabelledRegion, draw_regions, find_regions
from pixelis.evaluation.cases import MEANINGS, Case
from pixelis.evaluation.reasons import shorten
from pixelis.evaluation.turns import ANSWER, CALL, Rollout, Turn

MAX_TEXT = 400
MAX_QUESTION = 1200
MAX_FRAMES = 4
FRAME_SIDE = 210
CROP_SIDE = 132
MAX_TURNS = 12  # of one rollout; what it did after that is a loop
QUALITY = 82  # of WebP


@dataclass(frozen=True)
class Act:
    """One turn: what was thought, called and shown, as short texts.

    Attributes:
        number: as on the marks: `1`, or `R1` of the reference.
        thought: what was said before the call or the answer.
        call: the operation with its arguments, or empty.
        result: what it gave, or empty.
        failed: whether that is an error.
        crop: the address of the image that it gave, or empty.
        answer: what was answered, or None.
    """

    number: str
    thought: str
    call: str = ""
    result: str = ""
    failed: bool = False
    crop: str = ""
    answer: str | None = None


@dataclass(frozen=True)
class Card:
    """One case on the page; `frames` and `base_frames` are labels with the images' addresses."""

    verdict: str
    meaning: str
    group: str
    task: str
    id: str
    question: str
    truth: str
    answer: str | None
    base_answer: str | None
    has_base: bool
    why: str
    frames: Sequence[tuple[str, str]]
    acts: Sequence[Act]
    base_frames: Sequence[tuple[str, str]]
    base_acts: Sequence[Act]
    reference: Sequence[Act]
    more_turns: int


def build_card(case: Case) -> Card:
    """The card of a case; the model's marks are numbered by turn, the reference's R1, R2, ..."""
    example, rollout, base = case.example, case.rollout, case.base
    reference = [
        (f"R{number}", step.arguments, step.result, REFERENCE_COLOUR)
        for number, step in enumerate(example.trajectory, 1)
    ]
    # What the base looked at tells something where it was right alone.
    shows_base = base is not None and case.verdict == "lost"
    return Card(
        verdict=case.verdict,
        meaning=MEANINGS[case.verdict],
        group=example.difficulty,
        task=example.task,
        id=shorten(example.id, 40),
        question=cut(example.question, MAX_QUESTION),
        truth=cut(example.ground_truth),
        answer=None if rollout.answer is None else cut(rollout.answer),
        base_answer=None if base is None or base.answer is None else cut(base.answer),
        has_base=base is not None,
        why=case.why,
        frames=_frames(example, [*([] if case.is_right else reference), *_looks(rollout)]),
        acts=_acts(rollout),
        base_frames=_frames(example, _looks(base)) if shows_base and base else (),
        base_acts=_acts(base) if base is not None else (),
        reference=[
            Act(
                f"R{number}",
                cut(step.thought),
                _call(step.operation, step.arguments),
                _result(step.result),
                "error" in step.result,
            )
            for number, step in enumerate(example.trajectory, 1)
        ],
        more_turns=max(0, len(rollout.turns) - MAX_TURNS),
    )


def num_bytes(card: Card) -> int:
    """About how much a card adds to the page: its images."""
    acts = (*card.acts, *card.base_acts)
    frames = (*card.frames, *card.base_frames)
    return sum(len(act.crop) for act in acts) + sum(len(address) for _, address in frames)


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """A text with a note where it is cut off."""
    text = text.strip()
    return text if len(text) <= limit else f"{text[:limit]} ... [{len(text)} characters]"


def _looks(rollout: Rollout) -> list[tuple[str, Any, Mapping[str, Any] | None, str]]:
    return [
        (str(number), turn.arguments, turn.result, "")
        for number, turn in enumerate(rollout.turns[:MAX_TURNS], 1)
        if turn.kind == CALL
    ]


def _frames(
    example: Example, looks: Sequence[tuple[str, Any, Mapping[str, Any] | None, str]]
) -> list[tuple[str, str]]:
    """The images with what is looked at, each with its label; of many frames some."""
    count, last = min(MAX_FRAMES, len(example.images)), len(example.images) - 1
    shown = []
    for place in range(count):
        index = round(place * last / max(1, count - 1))
        marks = [
            LabelledRegion(found, label, colour) if colour else LabelledRegion(found, label)
            for label, arguments, result, colour in looks
            for found in find_regions(arguments, result, index + 1)
        ]
        side = {"side": FRAME_SIDE} if count > 1 else {}
        label = f"frame {index + 1} of {last + 1}" if count > 1 else ""
        shown.append((label, address(draw_regions(example.images[index], marks, **side))))
    return shown


def _acts(rollout: Rollout) -> list[Act]:
    return [_act(number, turn) for number, turn in enumerate(rollout.turns[:MAX_TURNS], 1)]


def _act(number: int, turn: Turn) -> Act:
    crop = "" if turn.image is None else address(draw_regions(turn.image, (), side=CROP_SIDE))
    if turn.kind == CALL:
        return Act(
            str(number),
            cut(turn.text.partition(CALL_OPEN)[0]),
            _call(turn.operation, turn.arguments),
            _result(turn.result or {}),
            "error" in (turn.result or {}),
            crop,
        )
    if turn.kind == ANSWER:
        thought = turn.text.partition("<answer>")[0]
        return Act(str(number), cut(thought), answer=cut(turn.answer or ""))
    return Act(str(number), cut(turn.text), result="neither a call nor an answer", failed=True)


def _call(operation: str, arguments: Any) -> str:
    if not isinstance(arguments, Mapping):
        return cut(f"{operation}({_short(arguments)})")
    inner = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())
    return cut(f"{operation}({inner})")


def _result(result: Mapping[str, Any]) -> str:
    if "error" in result:
        return cut(f"error: {result['error']}")
    return cut(", ".join(f"{name}: {_short(value)}" for name, value in result.items()))


def _short(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 80)


def address(image: Image.Image) -> str:
    """A `data:` address of an image, as WebP."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
