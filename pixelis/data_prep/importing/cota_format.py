"""Read CoTA records: question, image, trajectory, answer; rows of our own parquet files as well."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelis.data.example import SAMPLE_TYPES
from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.raw_example import (
    RawCall,
    RawExample,
    check_arguments,
    check_operation,
    read_result,
)
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import (
    check_answer,
    check_assistant_text,
    check_object,
    check_text,
    get_field,
    show,
)


def read_sample(data: Mapping[str, Any], folder: Path) -> list[RawExample]:
    """Read the one question of a CoTA record."""
    question = get_field(data, "question")
    answer = check_answer(get_field(data, "answer"), "answer")
    truth = check_answer(get_field(data, "ground_truth"), "ground_truth")
    trajectory = get_field(data, "trajectory")
    if trajectory is not None and not isinstance(trajectory, list):
        raise RejectedError("wrong_type", f"trajectory must be a list, got {show(trajectory)}")
    references = as_references(get_field(data, "images"))
    kept = get_field(data, "provenance")
    return [
        RawExample(
            question="" if question is None else check_text(question, "question"),
            images=tuple(load_images(references, folder)),
            calls=tuple(_read_step(step, folder) for step in trajectory or ()),
            conclusion=check_assistant_text(get_field(data, "conclusion") or "", "conclusion"),
            answer=check_assistant_text(answer or truth or "", "answer"),
            provenance={} if kept is None else {"original": check_object(kept, "provenance")},
        )
    ]


def _read_step(step: Any, folder: Path) -> RawCall:
    if not isinstance(step, dict):
        raise RejectedError("wrong_type", f"a step must be an object, got {show(step)}")
    supervised = get_field(step, "supervised")
    if supervised is not None and not isinstance(supervised, bool):
        raise RejectedError("wrong_type", f"supervised must be a bool, got {show(supervised)}")
    pictures = load_images(as_references(get_field(step, "image")), folder)
    if len(pictures) > 1:
        raise RejectedError("image_count", f"a step may have one image, got {len(pictures)}")
    return RawCall(
        thought=check_assistant_text(get_field(step, "thought") or "", "thought"),
        operation=check_operation(get_field(step, "operation")),
        arguments=check_arguments(get_field(step, "arguments")),
        result=read_result(get_field(step, "result")),
        image=pictures[0] if pictures else None,
        supervised=supervised is not False,
    )


def read_kind(data: Mapping[str, Any]) -> tuple[str, str]:
    """Read task and sample type of a record of any format."""
    task = get_field(data, "task")
    kind = get_field(data, "sample_type")
    kind = "positive" if kind is None else kind
    if kind not in SAMPLE_TYPES:
        choices = ", ".join(SAMPLE_TYPES)
        raise RejectedError("wrong_type", f"sample_type must be one of {choices}, got {show(kind)}")
    task = "" if task is None else check_text(task, "task")
    if len(task) > 100 or not task.isprintable():
        raise RejectedError(
            "wrong_type", f"task must be one line of at most 100 characters, got {show(task)}"
        )
    return task or "imported", kind
