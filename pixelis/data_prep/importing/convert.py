"""Convert a record of any format into examples."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelis.config import ToolConfig
from pixelis.data.example import SAMPLE_TYPES, Example
from pixelis.data.images import image_digest
from pixelis.data_prep.importing.chat_formats import read_chat
from pixelis.data_prep.importing.cota_format import read_sample, run_steps
from pixelis.data_prep.importing.files import Record
from pixelis.data_prep.importing.question_answer import is_trajectory, question_turns
from pixelis.data_prep.importing.values import (
    UNSUPPORTED,
    RejectedError,
    check_answers,
    check_id,
    check_text,
    get_answers,
    get_field,
    show,
)
from pixelis.errors import DataError


def _read_cota(data: Mapping[str, Any], folder: Path) -> Sequence[Mapping[str, Any]]:
    """Read a record with its steps as it is, and a question with its answer as a chat."""
    if is_trajectory(data):
        return [data]
    chat = {**data, "messages": question_turns(data), "conversations": None}
    return [{**each, "provenance": data.get("provenance")} for each in read_chat(chat, folder)]


# Record format -> function that makes CoTA records of a record, one for each question.
READERS: dict[str, Callable[[Mapping[str, Any], Path], Sequence[Mapping[str, Any]]]] = {
    "cota": _read_cota,
    "messages": read_chat,
    "conversations": read_chat,
}
MAX_TASK = 100
# Fields of a record that hold what is not supported.
MEDIA = tuple(f"{name}{end}" for name in ("video", "audio") for end in ("", "s", "_path", "_paths"))


def convert(
    record: Record,
    *,
    folder: Path,
    record_format: str,
    tools: Mapping[str, ToolConfig] | None = None,
    count_tokens: Callable[[Example], int] | None = None,
    max_length: int | None = None,
) -> list[Example]:
    """Convert a record into examples: a chat gives one for each question.

    The result depends only on the arguments and the image files.

    Args:
        record: the raw record.
        folder: the folder that holds every image; image paths are relative to it.
        record_format: a key of `FORMATS`.
        tools: what the tools of the record are here, by name; others are called as ours.
        count_tokens: counts the tokens of an example; None: no check of the length.
        max_length: the largest number of tokens of an example.

    Raises:
        RejectedError: when the record cannot be used.
    """
    if record.data is None:
        raise RejectedError(record.reason, record.error)
    _check_use(record.data)
    own_id = check_id(get_field(record.data, "id"))
    task, sample_type = _read_kind(record.data)
    samples = READERS[record_format](record.data, folder)
    drafts = [read_sample(each, folder, tools or {}) for each in samples]
    # Beside a chat, other keys than the truth may hold anything.
    names = ["ground_truth"]
    if record_format == "cota":
        names.append("answers" if get_field(record.data, "answer") is None else "answer")
    known = {name: check_answers(get_field(record.data, name), name) for name in names}
    _check_answers(drafts, known)
    _check_judged(drafts, sample_type, known["ground_truth"])
    right = get_answers(record.data) if record_format == "cota" else known["ground_truth"]
    if others := [answer for answer in right if answer != drafts[-1].answer]:
        provenance = {**drafts[-1].provenance, "alternatives": others}
        drafts[-1] = replace(drafts[-1], provenance=provenance)
    examples = []
    for number, draft in enumerate(drafts, 1):
        several = own_id is not None and len(drafts) > 1
        trajectory, replays = run_steps(draft.trajectory, draft.images)
        digest = image_digest(*draft.images)
        content = [record.file, record.line, draft.question, draft.answer, digest]
        made_id = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        example = replace(
            draft,
            id=f"{own_id}#{number}" if several else own_id or made_id,
            task=task,
            sample_type=sample_type,
            trajectory=trajectory,
            provenance={
                **draft.provenance,
                "source": "input",
                "format": record_format,
                "file": record.file,
                "line": record.line,
                "generator": "import",
                "image_digest": digest,
                "replays": replays,
            },
        )
        check_length(example, count_tokens, max_length, "max_length")
        examples.append(example)
    return examples


def _check_use(data: Mapping[str, Any]) -> None:
    """Refuse a record of video or audio, and a completion that its label calls a wrong one."""
    if any(data.get(name) for name in MEDIA):
        raise RejectedError("unsupported", UNSUPPORTED)
    is_chat = any(data.get(name) for name in ("messages", "conversations", "completion"))
    if data.get("label") is False and is_chat:
        raise RejectedError("not_trained", "the label is false: the completion is a wrong one")


def _read_kind(data: Mapping[str, Any]) -> tuple[str, str]:
    """Read task and sample type of a record of any format."""
    sample_type = get_field(data, "sample_type") or "positive"
    if sample_type not in SAMPLE_TYPES:
        choices = ", ".join(SAMPLE_TYPES)
        raise RejectedError(
            "wrong_type", f"sample_type must be one of {choices}, got {show(sample_type)}"
        )
    task = check_text(get_field(data, "task") or "imported", "task")
    if len(task) > MAX_TASK or not task.isprintable():
        raise RejectedError(
            "wrong_type",
            f"task must be one line of at most {MAX_TASK} characters, got {show(task)}",
        )
    return task or "imported", sample_type


def _check_answers(drafts: Sequence[Example], known: Mapping[str, Sequence[str]]) -> None:
    """Check that no part is missing, and that no wrong answer becomes a target."""
    for draft in drafts:
        if not draft.question:
            raise RejectedError("missing_text", "the question is missing or empty")
        for reason, part in (("no_image", draft.images), ("no_answer", draft.answer)):
            if not part:
                missing = reason.replace("_", " ")
                raise RejectedError(reason, f"the question has {missing}: {draft.question!r:.60}")
    answer = drafts[-1].answer
    for name, right in known.items():
        if right and answer not in right:
            raise RejectedError(
                "answer_differs",
                f"answer {show(answer)} and {name} {' or '.join(map(show, right))} differ",
            )


def _check_judged(drafts: Sequence[Example], sample_type: str, truths: Sequence[str]) -> None:
    """Refuse a flawed record that does not mark its flaw, since training would teach the flaw."""
    if sample_type == "self_correction":
        if all(step.supervised for draft in drafts for step in draft.trajectory):
            raise RejectedError(
                "unjudged", "a self_correction must mark its wrong step with supervised: false"
            )
    elif sample_type != "positive" and not truths:
        raise RejectedError(
            "unjudged",
            f"a record of type {sample_type} must have the right answer as ground_truth and its "
            "flawed solution in the question",
        )


def check_length(
    example: Example, count_tokens: Callable[[Example], int] | None, limit: int | None, rule: str
) -> None:
    """Refuse an example with more tokens than a limit, or that the model's processor refuses.

    Args:
        example: the example.
        count_tokens: counts its tokens; None: no check.
        limit: the largest number of tokens; None: any number.
        rule: the limit's name.
    """
    if count_tokens is None:
        return
    try:
        length = count_tokens(example)
    except DataError as error:  # such as an image as thin as a line
        raise RejectedError("unreadable_image", str(error)) from error
    if limit is not None and length > limit:
        raise RejectedError("too_long", f"{length} tokens, more than {rule} {limit}")
