"""The guide's raw CoTA records, and rows of our own parquet files, as drafts of examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelis.data.example import SAMPLE_TYPES
from pixelis.data_prep.importing.assemble import Draft
from pixelis.data_prep.importing.draft import (
    Call,
    check_arguments,
    check_operation,
    check_said,
    read_result,
)
from pixelis.data_prep.importing.pictures import as_references, load_images
from pixelis.data_prep.importing.record import RejectedError
from pixelis.data_prep.importing.values import check_answer, check_object, check_text, field, show


def read_sample(data: Mapping[str, Any], folder: Path) -> list[Draft]:
    """The one draft of a raw CoTA record.

    Raises:
        RejectedError: when a field breaks its rule.
    """
    question = field(data, "question")
    answer = check_answer(field(data, "answer"), "answer")
    truth = check_answer(field(data, "ground_truth"), "ground_truth")
    trajectory = field(data, "trajectory")
    if trajectory is not None and not isinstance(trajectory, list):
        raise RejectedError("wrong_type", f"trajectory must be a list, got {show(trajectory)}")
    references = as_references(field(data, "images"))
    kept = field(data, "provenance")
    return [
        Draft(
            question="" if question is None else check_text(question, "question"),
            images=tuple(load_images(references, folder)),
            calls=tuple(_read_step(step, folder) for step in trajectory or ()),
            conclusion=check_said(field(data, "conclusion") or "", "conclusion"),
            answer=check_said(answer or truth or "", "answer"),
            provenance={} if kept is None else {"original": check_object(kept, "provenance")},
        )
    ]


def _read_step(step: Any, folder: Path) -> Call:
    if not isinstance(step, dict):
        raise RejectedError("wrong_type", f"a step must be an object, got {show(step)}")
    supervised = field(step, "supervised")
    if supervised is not None and not isinstance(supervised, bool):
        raise RejectedError("wrong_type", f"supervised must be a bool, got {show(supervised)}")
    pictures = load_images(as_references(field(step, "image")), folder)
    if len(pictures) > 1:
        raise RejectedError("image_count", f"a step may have one image, got {len(pictures)}")
    return Call(
        thought=check_said(field(step, "thought") or "", "thought"),
        operation=check_operation(field(step, "operation")),
        arguments=check_arguments(field(step, "arguments")),
        result=read_result(field(step, "result")),
        image=pictures[0] if pictures else None,
        supervised=supervised is not False,
    )


def read_kind(data: Mapping[str, Any]) -> tuple[str, str]:
    """Task and sample type of a record of any format."""
    task = field(data, "task")
    kind = field(data, "sample_type")
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
