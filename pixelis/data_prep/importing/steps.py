"""The steps of a trajectory: read calls and results, and run the operations of missing results.

An empty `result` of a `Step` means that the record has none.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from pixelis.data.example import Step
from pixelis.data_prep.importing.values import (
    RejectedError,
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


def check_operation(name: Any) -> str:
    """Return the name of an operation."""
    if not isinstance(name, str) or name not in OPERATIONS:
        choices = ", ".join(OPERATIONS)
        raise RejectedError("unknown_operation", f"operation {show(name)}; choices: {choices}")
    return name


def check_arguments(value: Any) -> dict[str, Any]:
    """Return a call's arguments, given as an object or as JSON text."""
    return check_object({} if value is None else value, "a call's arguments", "broken_call")


def read_call(raw: Any) -> Step:
    """Read a call in OpenAI's form or as `{"name": ..., "arguments": ...}`."""
    inner = raw
    if isinstance(raw, dict) and raw.get("function") is not None:
        inner = raw["function"]
    if not isinstance(inner, dict):
        raise RejectedError("broken_call", f"a call must be an object, got {show(inner)}")
    operation = check_operation(inner.get("name"))
    return Step("", operation, check_arguments(get_field(inner, "arguments")), {})


def read_result(value: Any) -> dict[str, Any]:
    """Read a result as an object: JSON text is parsed, other text and bare values are wrapped."""
    if isinstance(value, str):
        text = value
        try:
            value = parse_json(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            value = {"text": check_text(text, "a result") or None}
    if value is None:
        return {}
    return check_object(value if isinstance(value, dict) else {"value": value}, "a result")


def run_steps(steps: Sequence[Step], images: Sequence[Image.Image]) -> tuple[Step, ...]:
    """Run the operation of every step that lacks its result or its image."""
    if len(steps) > MAX_STEPS:
        raise RejectedError(
            "too_large", f"a trajectory may have {MAX_STEPS} steps, got {len(steps)}"
        )
    pixels = sum(image.width * image.height for image in images)
    work = pixels * sum(_must_run(step) for step in steps)
    if work > MAX_WORK:
        raise RejectedError(
            "too_large", f"calls to run times pixels may be {MAX_WORK} for a record, got {work}"
        )
    return tuple(_run(step, images) if _must_run(step) else step for step in steps)


def _must_run(step: Step) -> bool:
    lacks_image = step.operation == "ZOOM_IN" and step.image is None
    return not step.result or (lacks_image and "error" not in step.result)


def _run(step: Step, images: Sequence[Image.Image]) -> Step:
    observed = execute(step.operation, step.arguments, images)
    # A planted wrong step may fail: its error is then the observation.
    if observed.is_error and (step.supervised or step.result):
        raise RejectedError(
            "failed_operation", f"{step.operation} has no result: {observed.result['error']}"
        )
    image = observed.image if step.image is None else step.image
    return replace(step, result=step.result or observed.result, image=image)
