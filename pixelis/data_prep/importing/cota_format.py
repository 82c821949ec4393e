"""Read CoTA records: question, image, trajectory, answer; rows of our own parquet files as well.

An empty `result` of a `Step` means that the record has none: `run_steps` runs its operation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.values import (
    RejectedError,
    check_assistant_text,
    check_object,
    check_text,
    get_answers,
    get_field,
    parse_json,
    read_list,
    show,
)
from pixelis.operations import OPERATIONS, execute

MAX_STEPS = 64
# Limit of pixels times calls for one record: half a minute on the largest images.
MAX_WORK = 200_000_000


def read_sample(data: Mapping[str, Any], folder: Path) -> Example:
    """Read a CoTA record: an example without id, task and type, whose steps may lack results."""
    answer = check_assistant_text(next(iter(get_answers(data)), ""), "answer")
    steps = read_list(get_field(data, "trajectory")) or []
    if not isinstance(steps, list):
        raise RejectedError("wrong_type", f"trajectory must be a list, got {show(steps)}")
    kept = get_field(data, "provenance")
    return Example(
        id="",
        task="",
        sample_type="",
        question=check_text(get_field(data, "question") or "", "question"),
        images=tuple(load_images(as_references(get_field(data, "images")), folder)),
        trajectory=tuple(_read_step(step, folder) for step in steps),
        conclusion=check_assistant_text(get_field(data, "conclusion") or "", "conclusion"),
        answer=answer,
        ground_truth=answer,
        provenance={} if kept is None else {"original": check_object(kept, "provenance")},
    )


def _read_step(step: Any, folder: Path) -> Step:
    if not isinstance(step, dict):
        raise RejectedError("wrong_type", f"a step must be an object, got {show(step)}")
    supervised = get_field(step, "supervised")
    if not isinstance(supervised, bool | None):
        raise RejectedError("wrong_type", f"supervised must be a bool, got {show(supervised)}")
    images = load_images(as_references(get_field(step, "image")), folder)
    if len(images) > 1:
        raise RejectedError("image_count", f"a step may have one image, got {len(images)}")
    operation = get_field(step, "operation")
    if not isinstance(operation, str) or operation not in OPERATIONS:
        choices = ", ".join(OPERATIONS)
        raise RejectedError("unknown_operation", f"operation {show(operation)}; choices: {choices}")
    arguments = get_field(step, "arguments")
    return Step(
        thought=check_assistant_text(get_field(step, "thought") or "", "thought"),
        operation=operation,
        arguments=check_object({} if arguments is None else arguments, "arguments", "broken_call"),
        result=_read_result(get_field(step, "result")),
        image=images[0] if images else None,
        supervised=supervised is not False,
    )


def _read_result(value: Any) -> dict[str, Any]:
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
