"""Record -> examples or a rejection: one table of formats, one way out for every broken rule."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelis.data.example import Example
from pixelis.data_prep.importing.assemble import Draft, assemble
from pixelis.data_prep.importing.chats import read_conversations, read_messages
from pixelis.data_prep.importing.record import Record, RejectedError, Rejection, reject
from pixelis.data_prep.importing.samples import read_kind, read_sample
from pixelis.data_prep.importing.values import check_answer, check_id, field, show

READERS: dict[str, Callable[[Mapping[str, Any], Path], list[Draft]]] = {
    "cota": read_sample,
    "messages": read_messages,
    "conversations": read_conversations,
}


def convert(
    record: Record,
    *,
    folder: Path,
    record_format: str,
    count_tokens: Callable[[Example], int] | None = None,
    max_length: int | None = None,
) -> list[Example] | Rejection:
    """The examples of a record (a chat gives one for each question), or why there are none.

    System turns are not kept: ours is written from the operations. A function of its arguments and
    the image files alone.

    Args:
        record: as read.
        folder: what image paths are relative to and may not leave.
        record_format: a key of `FORMATS`.
        count_tokens: how long an example is; None leaves the length unchecked.
        max_length: how long one may be.
    """
    if record.data is None:
        return reject(record, record.reason, record.error)
    try:
        examples = _convert(record, record.data, folder, record_format)
        if count_tokens is not None and max_length is not None:
            for example in examples:
                _check_length(example, count_tokens(example), max_length)
        return examples
    except RejectedError as error:
        return reject(record, error.reason, error.detail)


def _convert(
    record: Record, data: dict[str, Any], folder: Path, record_format: str
) -> list[Example]:
    own_id = check_id(field(data, "id"))
    kind = read_kind(data)
    drafts = READERS[record_format](data, folder)
    truth = check_answer(field(data, "ground_truth"), "ground_truth")
    # No wrong answer is ever a target: what is flawed belongs into the question.
    if truth is not None and drafts[-1].answer not in ("", truth):
        answer = drafts[-1].answer
        raise RejectedError(
            "answer_differs", f"answer {show(answer)} and ground_truth {show(truth)} differ"
        )
    _check_judged(kind[1], drafts, truth)
    examples = []
    for number, draft in enumerate(drafts, 1):
        several = own_id is not None and len(drafts) > 1
        record_id = f"{own_id}#{number}" if several else own_id
        example = assemble(
            draft, record, record_id=record_id, record_format=record_format, kind=kind
        )
        examples.append(example)
    return examples


def _check_judged(sample_type: str, drafts: Sequence[Draft], truth: str | None) -> None:
    """Refuse what would train a flaw: nobody but the record can tell which step or answer it is."""
    if sample_type == "positive":
        return
    if sample_type == "self_correction":
        if all(call.supervised for draft in drafts for call in draft.calls):
            raise RejectedError(
                "unjudged", "a self_correction must mark its wrong step with supervised: false"
            )
    elif truth is None:
        raise RejectedError(
            "unjudged",
            f"a record of type {sample_type} must have the right answer as ground_truth and its "
            "flawed solution in the question",
        )


def _check_length(example: Example, length: int, max_length: int) -> None:
    if length > max_length:
        raise RejectedError("too_long", f"{length} tokens, more than max_length {max_length}")
