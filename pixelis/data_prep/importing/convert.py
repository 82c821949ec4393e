"""Convert a record of any format into examples, or into the reason why it is rejected."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelis.data.example import Example
from pixelis.data.images import image_digest
from pixelis.data_prep.importing.chat_rounds import read_conversations, read_messages
from pixelis.data_prep.importing.cota_format import read_kind, read_sample
from pixelis.data_prep.importing.raw_example import RawExample, run_calls
from pixelis.data_prep.importing.record import Record, RejectedError, Rejection, reject
from pixelis.data_prep.importing.values import check_answer, check_id, get_field, show

# Record format -> function that reads a record, given the folder of its images.
READERS: dict[str, Callable[[Mapping[str, Any], Path], list[RawExample]]] = {
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
    """Convert a record into examples (a chat gives one for each question), or a rejection.

    System turns are dropped, since our own system turn describes the operations. The result depends
    only on the arguments and the image files.

    Args:
        record: the raw record.
        folder: the folder that holds every image; image paths are relative to it.
        record_format: a key of `FORMATS`.
        count_tokens: counts the tokens of an example; None: no check of the length.
        max_length: the largest number of tokens of an example.
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
    own_id = check_id(get_field(data, "id"))
    kind = read_kind(data)
    raw_examples = READERS[record_format](data, folder)
    truth = check_answer(get_field(data, "ground_truth"), "ground_truth")
    # A wrong answer must not become a target: flawed solutions belong in the question.
    if truth is not None and raw_examples[-1].answer not in ("", truth):
        answer = raw_examples[-1].answer
        raise RejectedError(
            "answer_differs", f"answer {show(answer)} and ground_truth {show(truth)} differ"
        )
    _check_judged(kind[1], raw_examples, truth)
    several = own_id is not None and len(raw_examples) > 1
    return [
        _build_example(
            raw,
            record,
            own_id=f"{own_id}#{number}" if several else own_id,
            record_format=record_format,
            kind=kind,
        )
        for number, raw in enumerate(raw_examples, 1)
    ]


def _check_judged(sample_type: str, raw_examples: Sequence[RawExample], truth: str | None) -> None:
    """Refuse a flawed record that does not mark its flaw, since training would teach the flaw."""
    if sample_type == "positive":
        return
    if sample_type == "self_correction":
        if all(call.supervised for raw in raw_examples for call in raw.calls):
            raise RejectedError(
                "unjudged", "a self_correction must mark its wrong step with supervised: false"
            )
    elif truth is None:
        raise RejectedError(
            "unjudged",
            f"a record of type {sample_type} must have the right answer as ground_truth and its "
            "flawed solution in the question",
        )


def _build_example(
    raw: RawExample,
    record: Record,
    *,
    own_id: str | None,
    record_format: str,
    kind: tuple[str, str],
) -> Example:
    """Check that no part is missing, run the calls, and build the example.

    Args:
        raw: the question with its calls and answer.
        record: the raw record, for the provenance.
        own_id: the record's own id; None: an id is computed from its position and content.
        record_format: the record's format, for the provenance.
        kind: task and sample type.
    """
    if not raw.question:
        raise RejectedError("missing_text", "the question is missing or empty")
    if not raw.images:
        raise RejectedError("no_image", f"the question has no image: {raw.question[:60]!r}")
    if not raw.answer:
        raise RejectedError("no_answer", f"the question has no answer: {raw.question[:60]!r}")
    digest = image_digest(*raw.images)
    content = json.dumps([record.file, record.line, raw.question, raw.answer, digest])
    return Example(
        id=own_id or hashlib.sha256(content.encode()).hexdigest()[:16],
        task=kind[0],
        sample_type=kind[1],
        question=raw.question,
        images=raw.images,
        trajectory=run_calls(raw.calls, raw.images),
        conclusion=raw.conclusion,
        answer=raw.answer,
        ground_truth=raw.answer,
        provenance={
            **raw.provenance,
            "source": "input",
            "format": record_format,
            "file": record.file,
            "line": record.line,
            "generator": "import",
            "image_digest": digest,
        },
    )


def _check_length(example: Example, length: int, max_length: int) -> None:
    if length > max_length:
        raise RejectedError("too_long", f"{length} tokens, more than max_length {max_length}")
