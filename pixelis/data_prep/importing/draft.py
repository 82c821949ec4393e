"""Raw calls -> steps: names and arguments checked, missing results made by running the call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.data.example import Step
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_object, check_text, parse_json, show
from pixelis.operations import OPERATIONS, execute

MAX_STEPS = 64
# Pixels times calls that one record may make us run: half a minute where images are largest.
MAX_WORK = 200_000_000
# Whose observation is an image, which a record may leave out.
IMAGE_OPERATIONS = ("ZOOM_IN",)

_TAGS = (CALL_OPEN, CALL_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE, "<answer>", "</answer>")


@dataclass(frozen=True)
class Call:
    """A call as a record gives it; `result` is None where the record has none."""

    thought: str
    operation: str
    arguments: dict[str, Any]
    result: dict[str, Any] | None = None
    image: Image.Image | None = None
    supervised: bool = True


def check_said(value: Any, what: str) -> str:
    """A text of the assistant: as `check_text`, and free of the tags of calls and answers."""
    text = check_text(value, what)
    check_markup(text, what)
    return text


def check_markup(text: str, what: str) -> None:
    """Refuse a text that would close or open a call or an answer where the assistant says it.

    Raises:
        RejectedError: naming the tag that the text holds.
    """
    for tag in _TAGS:
        if tag in text:
            raise RejectedError("markup", f"{what} may not hold {tag}")


def check_operation(value: Any) -> str:
    """An operation's name, exactly as the table has it."""
    if not isinstance(value, str) or value not in OPERATIONS:
        choices = ", ".join(OPERATIONS)
        raise RejectedError("unknown_operation", f"operation {show(value)}; choices: {choices}")
    return value


def check_arguments(value: Any) -> dict[str, Any]:
    """A call's arguments: an object, or its JSON text."""
    return check_object({} if value is None else value, "a call's arguments", "broken_call")


def read_result(value: Any) -> dict[str, Any] | None:
    """A result as an object: JSON text is read, other text and bare values are wrapped."""
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


def run_calls(calls: Sequence[Call], images: Sequence[Image.Image]) -> tuple[Step, ...]:
    """The steps of calls; what a record leaves out is made by running the operation.

    Raises:
        RejectedError: when there are too many, or a call that must be run is refused.
    """
    if len(calls) > MAX_STEPS:
        raise RejectedError("too_large", f"a trajectory may have {MAX_STEPS} steps")
    pixels = sum(image.width * image.height for image in images)
    work = pixels * sum(_must_run(call) for call in calls)
    if work > MAX_WORK:
        raise RejectedError(
            "too_large", f"calls to run times pixels may be {MAX_WORK} for a record, got {work}"
        )
    return tuple(_run(call, images) for call in calls)


def _must_run(call: Call) -> bool:
    if call.result is None:
        return True
    pictured = call.operation in IMAGE_OPERATIONS and "error" not in call.result
    return pictured and call.image is None


def _run(call: Call, images: Sequence[Image.Image]) -> Step:
    result: Mapping[str, Any] | None = call.result
    image = call.image
    if _must_run(call):
        observed = execute(call.operation, call.arguments, images)
        # A planted wrong step may fail: the error is what it shows.
        if observed.is_error and (call.supervised or result is not None):
            raise RejectedError(
                "failed_operation", f"{call.operation} has no result: {observed.result['error']}"
            )
        image = observed.image if image is None else image
        result = observed.result if result is None else result
    return Step(call.thought, call.operation, call.arguments, result or {}, image, call.supervised)
