"""A question with its calls and answer, as read from any format, and its calls as steps.

The readers of the formats return `RawExample`s; `convert` converts them to `Example`s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pixelis.data.example import Step
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import (
    check_object,
    check_text,
    get_field,
    parse_json,
    show,
)
from pixelis.operations import OPERATIONS, execute

MAX_STEPS = 64
# Limit of pixels times calls for one record: half a minute on the largest images.
MAX_WORK = 200_000_000
# Operations whose observation is an image, which a record may leave out.
IMAGE_OPERATIONS = ("ZOOM_IN",)


@dataclass(frozen=True)
class RawCall:
    """A call of a record; `result` is None if the record has no result."""

    thought: str
    operation: str
    arguments: dict[str, Any]
    result: dict[str, Any] | None = None
    image: Image.Image | None = None
    supervised: bool = True
    call_id: str = ""

    @property
    def must_run(self) -> bool:
        """Whether the operation must run because the record lacks its result or image."""
        if self.result is None:
            return True
        gives_image = self.operation in IMAGE_OPERATIONS and "error" not in self.result
        return gives_image and self.image is None


@dataclass(frozen=True)
class RawExample:
    """One question of a record with its calls and answer."""

    question: str
    images: tuple[Image.Image, ...]
    calls: tuple[RawCall, ...]
    conclusion: str
    answer: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def check_operation(value: Any) -> str:
    """Return an operation's name, which must be a key of OPERATIONS."""
    if not isinstance(value, str) or value not in OPERATIONS:
        choices = ", ".join(OPERATIONS)
        raise RejectedError("unknown_operation", f"operation {show(value)}; choices: {choices}")
    return value


def check_arguments(value: Any) -> dict[str, Any]:
    """Return a call's arguments, given as an object or as JSON text."""
    return check_object({} if value is None else value, "a call's arguments", "broken_call")


def read_call(raw: Any) -> RawCall:
    """Read a call in OpenAI's form or as `{"name": ..., "arguments": ...}`."""
    if not isinstance(raw, dict):
        raise RejectedError("broken_call", f"a call must be an object, got {show(raw)}")
    inner = raw.get("function") if raw.get("function") is not None else raw
    if not isinstance(inner, dict):
        raise RejectedError(
            "broken_call", f"a call's function must be an object, got {show(inner)}"
        )
    call_id = raw.get("id")
    return RawCall(
        thought="",
        operation=check_operation(inner.get("name")),
        arguments=check_arguments(get_field(inner, "arguments")),
        call_id=call_id if isinstance(call_id, str) else "",
    )


def read_result(value: Any) -> dict[str, Any] | None:
    """Read a result as an object: JSON text is parsed, other text and bare values are wrapped."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            parsed = parse_json(value)
        except ValueError:
            parsed = None
        value = parsed if isinstance(parsed, dict) else {"text": check_text(value, "a result")}
    if value is None:
        return None
    if not isinstance(value, dict):
        value = {"value": value}
    return check_object(value, "a result") or None


def run_calls(calls: Sequence[RawCall], images: Sequence[Image.Image]) -> tuple[Step, ...]:
    """Convert calls to steps; run the operation where the record lacks a result."""
    if len(calls) > MAX_STEPS:
        raise RejectedError("too_large", f"a trajectory may have {MAX_STEPS} steps")
    pixels = sum(image.width * image.height for image in images)
    work = pixels * sum(call.must_run for call in calls)
    if work > MAX_WORK:
        raise RejectedError(
            "too_large", f"calls to run times pixels may be {MAX_WORK} for a record, got {work}"
        )
    return tuple(_run(call, images) for call in calls)


def _run(call: RawCall, images: Sequence[Image.Image]) -> Step:
    result: Mapping[str, Any] | None = call.result
    image = call.image
    if call.must_run:
        observed = execute(call.operation, call.arguments, images)
        # A planted wrong step may fail: its error is then the observation.
        if observed.is_error and (call.supervised or result is not None):
            raise RejectedError(
                "failed_operation", f"{call.operation} has no result: {observed.result['error']}"
            )
        image = observed.image if image is None else image
        result = observed.result if result is None else result
    return Step(call.thought, call.operation, call.arguments, result or {}, image, call.supervised)
