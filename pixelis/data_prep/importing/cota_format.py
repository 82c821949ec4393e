"""Read CoTA records: question, image, trajectory, answer; rows of our own parquet files as well.

An empty `result` of a `Step` means that the record has none: `run_steps` runs its operation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from pixelis.config import ToolConfig
from pixelis.data.example import Example, Step
from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.tools import describe_unmapped, map_call
from pixelis.data_prep.importing.values import (
    RejectedError,
    check_answer,
    check_assistant_text,
    check_object,
    check_text,
    get_field,
    parse_json,
    show,
)
from pixelis.operations import OPERATIONS, Observation, execute

MAX_STEPS = 64
# Limit of pixels times calls for one record: half a minute on the largest images.
MAX_WORK = 200_000_000
# Two images show the same if no channel differs by more than this on average: JPEG does not.
MAX_DIFFERENCE = 16
# What is known of a call: its operation gave what the record brings, or the record brings nothing;
# it gave something else; it could not be run, or gives nothing that can be compared.
REPLAYED, DISAGREED, NOT_REPLAYED = REPLAYS = ("replayed", "disagreed", "not_replayed")


def read_sample(data: Mapping[str, Any], folder: Path, tools: Mapping[str, ToolConfig]) -> Example:
    """Read a CoTA record: an example without id, task and type, whose steps may lack results."""
    answer = check_answer(get_field(data, "answer"), "answer")
    truth = check_answer(get_field(data, "ground_truth"), "ground_truth")
    answer = check_assistant_text(answer or truth or "", "answer")
    steps = get_field(data, "trajectory") or []
    if not isinstance(steps, list):
        raise RejectedError("wrong_type", f"trajectory must be a list, got {show(steps)}")
    kept = get_field(data, "provenance")
    images = load_images(as_references(get_field(data, "images")), folder)
    size = images[0].size if images else None
    return Example(
        id="",
        task="",
        sample_type="",
        question=check_text(get_field(data, "question") or "", "question"),
        images=tuple(images),
        trajectory=tuple(_read_step(step, folder, tools, size) for step in steps),
        conclusion=check_assistant_text(get_field(data, "conclusion") or "", "conclusion"),
        answer=answer,
        ground_truth=answer,
        provenance={} if kept is None else {"original": check_object(kept, "provenance")},
    )


def _read_step(
    step: Any, folder: Path, tools: Mapping[str, ToolConfig], size: tuple[int, int] | None
) -> Step:
    if not isinstance(step, dict):
        raise RejectedError("wrong_type", f"a step must be an object, got {show(step)}")
    supervised = get_field(step, "supervised")
    if not isinstance(supervised, bool | None):
        raise RejectedError("wrong_type", f"supervised must be a bool, got {show(supervised)}")
    images = load_images(as_references(get_field(step, "image")), folder)
    if len(images) > 1:
        raise RejectedError("image_count", f"a step may have one image, got {len(images)}")
    operation, given = get_field(step, "operation"), get_field(step, "arguments")
    if not isinstance(operation, str) or operation not in (*OPERATIONS, *tools):
        choices = ", ".join(OPERATIONS)
        raise RejectedError(
            "unknown_operation",
            f"operation {show(operation)}; choices: {choices}, or what import.tools maps",
            describe_unmapped(operation) if isinstance(operation, str) else "",
        )
    arguments = check_object({} if given is None else given, "arguments", "broken_call")
    if operation in tools:
        operation, arguments = map_call(operation, arguments, tools[operation], size)
    return Step(
        thought=check_assistant_text(get_field(step, "thought") or "", "thought"),
        operation=operation,
        arguments=arguments,
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


def run_steps(
    steps: Sequence[Step], images: Sequence[Image.Image]
) -> tuple[tuple[Step, ...], list[str]]:
    """Run the operations of all steps: they give what a step lacks, and check what it brings.

    What a record brings is kept. What it brings of results is checked only as long as MAX_WORK
    allows.

    Returns:
        The steps with results, and of each the word of REPLAYS that holds.
    """
    if len(steps) > MAX_STEPS:
        raise RejectedError(
            "too_large", f"a trajectory may have {MAX_STEPS} steps, got {len(steps)}"
        )
    steps = [_describe_image(step) for step in steps]
    pixels = sum(image.width * image.height for image in images)
    work = pixels * sum(_must_run(step) for step in steps)
    if work > MAX_WORK:
        raise RejectedError(
            "too_large", f"calls to run times pixels may be {MAX_WORK} for a record, got {work}"
        )
    done, replays = [], []
    for step in steps:
        replay = NOT_REPLAYED
        if _must_run(step) or (work := work + pixels) <= MAX_WORK:
            step, replay = _run(step, images)
        done.append(step)
        replays.append(replay)
    return tuple(done), replays


def _describe_image(step: Step) -> Step:
    """Give a ZOOM_IN that brings its image without a result the result of this image."""
    if step.operation != "ZOOM_IN" or step.image is None or step.result:
        return step
    return replace(step, result={"size": [*step.image.size]})


def _must_run(step: Step) -> bool:
    lacks_image = step.operation == "ZOOM_IN" and step.image is None
    return not step.result or (lacks_image and "error" not in step.result)


def _run(step: Step, images: Sequence[Image.Image]) -> tuple[Step, str]:
    """Run the operation of a step; return the complete step, and what is known of its call."""
    observed = execute(step.operation, step.arguments, images)
    if not _must_run(step):
        return step, _compare(step, observed)
    # A planted wrong step may fail: its error is then the observation.
    if observed.is_error and (step.supervised or step.result):
        raise RejectedError(
            "failed_operation", f"{step.operation} has no result: {observed.result['error']}"
        )
    if step.result:  # a ZOOM_IN without an image: the result must not tell of another one
        result = {name: observed.result.get(name, value) for name, value in step.result.items()}
        agrees = result == step.result
        return replace(step, result=result, image=observed.image), _word(agrees)
    if step.image is None:
        return replace(step, result=observed.result, image=observed.image), REPLAYED
    return replace(step, result=observed.result), DISAGREED  # only ZOOM_IN has an image


def _word(agrees: bool) -> str:
    return REPLAYED if agrees else DISAGREED


def _compare(step: Step, observed: Observation) -> str:
    """Compare what a record brings with the operation's own observation."""
    if observed.is_error:
        return REPLAYED if "error" in step.result else NOT_REPLAYED
    if "error" in step.result:
        return DISAGREED
    # A text of the record, such as "Here is the cropped image", is nothing to compare.
    shared = step.result.keys() & observed.result.keys()
    agrees = all(step.result[name] == observed.result[name] for name in shared)
    if step.image is not None:
        return _word(agrees and _is_alike(step.image, observed.image))
    return _word(agrees) if shared else NOT_REPLAYED


def _is_alike(image: Image.Image, other: Image.Image | None) -> bool:
    """Return whether two images have the same size and, but for compression, the same pixels."""
    if other is None or image.size != other.size:
        return False
    difference = ImageChops.difference(image.convert("RGB"), other.convert("RGB"))
    return max(ImageStat.Stat(difference).mean) <= MAX_DIFFERENCE
