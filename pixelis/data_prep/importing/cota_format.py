"""Read CoTA records: question, image, trajectory, answer; rows of our own parquet files as well."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelis.data.example import Example, Step
from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.steps import check_arguments, check_operation, read_result
from pixelis.data_prep.importing.values import (
    RejectedError,
    check_answer,
    check_assistant_text,
    check_object,
    check_text,
    get_field,
    show,
)


def read_sample(data: Mapping[str, Any], folder: Path) -> list[Example]:
    """Read the one question of a CoTA record."""
    answer = check_answer(get_field(data, "answer"), "answer")
    truth = check_answer(get_field(data, "ground_truth"), "ground_truth")
    answer = check_assistant_text(answer or truth or "", "answer")
    steps = get_field(data, "trajectory") or []
    if not isinstance(steps, list):
        raise RejectedError("wrong_type", f"trajectory must be a list, got {show(steps)}")
    kept = get_field(data, "provenance")
    return [
        Example(
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
    ]


def _read_step(step: Any, folder: Path) -> Step:
    if not isinstance(step, dict):
        raise RejectedError("wrong_type", f"a step must be an object, got {show(step)}")
    supervised = get_field(step, "supervised")
    if not isinstance(supervised, bool | None):
        raise RejectedError("wrong_type", f"supervised must be a bool, got {show(supervised)}")
    images = load_images(as_references(get_field(step, "image")), folder)
    if len(images) > 1:
        raise RejectedError("image_count", f"a step may have one image, got {len(images)}")
    return Step(
        thought=check_assistant_text(get_field(step, "thought") or "", "thought"),
        operation=check_operation(get_field(step, "operation")),
        arguments=check_arguments(get_field(step, "arguments")),
        result=read_result(get_field(step, "result")),
        image=images[0] if images else None,
        supervised=supervised is not False,
    )
