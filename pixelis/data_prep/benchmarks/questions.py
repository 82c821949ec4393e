"""Choose questions of every group from a user's file, and open only the chosen ones as examples.

Paths, sizes and texts are checked by the rules of data-prep's import. A record that breaks a rule
is rejected with a reason; too many rejections are an error.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pixelis.data.example import Example
from pixelis.data_prep.benchmarks.layouts import LAYOUTS, Layout, Question
from pixelis.data_prep.importing import (
    Ids,
    Input,
    Record,
    RejectedError,
    Rejection,
    check_length,
    content_digest,
    convert,
    open_input,
    read_records,
)
from pixelis.data_prep.importing.files import check_inside
from pixelis.errors import DataError

# The group of records whose file has no groups.
ONE_GROUP = "questions"
MAX_QUOTED = 3  # the number of rejections that an error quotes


@dataclass(frozen=True)
class QuestionSet:
    """The questions that were read."""

    # The chosen ones, by group; their `difficulty` is the group's name.
    examples: tuple[Example, ...]
    rejections: tuple[Rejection, ...]  # the reason of each rejected record
    num_records: int  # the number of records in the file
    format: str  # a key of LAYOUTS or of data-prep's FORMATS
    title: str  # the name of the data in reports


def read_questions(
    path: Path,
    *,
    record_format: str | None,
    images: Path | None,
    samples_per_group: int,
    max_rejected: float,
    seed: int,
    count_tokens: Callable[[Example], int] | None = None,
    max_positions: int | None = None,
) -> QuestionSet:
    """Choose and open the questions of a file or folder.

    Args:
        path: the file, or the folder that holds it.
        record_format: a key of LAYOUTS or of data-prep's FORMATS; None detects one of the latter.
        images: the folder that holds every image; None: the file's folder.
        samples_per_group: the largest number of questions per group.
        max_rejected: the largest share of rejected records among those that were read.
        seed: seed of the random choice.
        count_tokens: counts the tokens of an example; None: no check of the length.
        max_positions: the largest number of tokens: attention's memory grows with its square.

    Raises:
        DataError: when the input is missing or has another layout, no record can be used, or too
            many are rejected.
    """
    source = _open(path, record_format, images)
    layout = LAYOUTS.get(source.format)
    rejections: list[Rejection] = []
    groups: dict[str, list[tuple[Record, Question | None]]] = {}
    num_records = 0
    for record in read_records(source):
        num_records += 1
        try:
            question = _read(record, layout)
        except RejectedError as error:
            rejections.append(error.at(record.file, record.line))
            continue
        group = ONE_GROUP if question is None else question.group
        groups.setdefault(group, []).append((record, question))
    check = partial(
        check_length,
        count_tokens=count_tokens,
        limit=max_positions,
        rule="the model's max_position_embeddings",
    )
    ids = Ids()
    examples: list[Example] = []
    for group in sorted(groups):
        members = groups[group]
        random.Random(f"questions:{seed}:{group}").shuffle(members)
        chosen = _choose(members, source, ids, rejections, check)
        examples += [
            replace(example, difficulty=group, split="test")
            for example in islice(chosen, samples_per_group)
        ]
    _check(source, examples, rejections, num_records, max_rejected)
    title = layout.title if layout else f"{path.name} ({source.format})"
    return QuestionSet(tuple(examples), tuple(rejections), num_records, source.format, title)


def _open(path: Path, record_format: str | None, images: Path | None) -> Input:
    layout = LAYOUTS.get(record_format or "")
    if layout is None:
        return open_input(path, input_format=record_format, images=images)
    file = path
    if path.is_dir():
        file = next((path / name for name in layout.files if (path / name).is_file()), path)
        if file == path:
            names = " or ".join(layout.files)
            raise DataError(f"{layout.title} in {path!s:.200} must have {names}, or name the file")
        check_inside(file, path)
    return replace(open_input(file, input_format=record_format, images=images), path=path)


def _read(record: Record, layout: Layout | None) -> Question | None:
    """Read a layout's question; None for data-prep's formats, which are read after the choice."""
    if record.data is None:
        raise RejectedError(record.reason, record.error)
    return layout.read(record.data) if layout is not None else None


def _choose(
    members: Sequence[tuple[Record, Question | None]],
    source: Input,
    ids: Ids,
    rejections: list[Rejection],
    check: Callable[[Example], None],
) -> Iterator[Example]:
    """Yield the examples of a group one by one; append the other records to `rejections`."""
    for record, question in members:
        try:
            for example in _build_examples(record, question, source):
                check(example)
                name = ids.take(example.id, content_digest(example))
                if name is None:
                    detail = f"the id {example.id!r:.80} and its content came before"
                    raise RejectedError("duplicate_id", detail)
                yield replace(example, id=name)
        except RejectedError as error:
            rejections.append(error.at(record.file, record.line))


def _build_examples(record: Record, question: Question | None, source: Input) -> list[Example]:
    if question is None:
        return convert(record, folder=source.folder, record_format=source.format)
    as_cota = replace(record, data=question.record)
    (example,) = convert(as_cota, folder=source.folder, record_format="cota")
    scoring: dict[str, Any] = {
        "format": source.format,
        "answer_type": LAYOUTS[source.format].answer_type,
        "alternatives": list(question.alternatives),
    }
    if question.num_options is not None:
        scoring["num_options"] = question.num_options
    return [replace(example, task=source.format, provenance={**example.provenance, **scoring})]


def _check(
    source: Input,
    examples: Sequence[Example],
    rejections: Sequence[Rejection],
    num_records: int,
    max_rejected: float,
) -> None:
    quoted = "; ".join(describe_rejection(each) for each in rejections[:MAX_QUOTED])
    if not examples:
        raise DataError(
            f"input {source.path!s:.200} holds no question that can be used, of {num_records} "
            f"records" + (f": {quoted}" if quoted else "")
        )
    looked_at = len(examples) + len(rejections)
    if len(rejections) > max_rejected * looked_at:
        raise DataError(
            f"{len(rejections)} of the {looked_at} records looked at in {source.path!s:.200} "
            f"cannot be used, more than max_rejected {max_rejected:g}: {quoted}"
        )


def describe_rejection(rejection: Rejection) -> str:
    """Return file, line, reason and detail in one line."""
    return f"{rejection.file}:{rejection.line} {rejection.reason}: {rejection.detail}"


def questions_digest(examples: Sequence[Example]) -> str:
    """Compute the SHA-256 of all questions: ids, texts, answers and pixels."""
    digest = hashlib.sha256()
    for example in examples:
        kept: Mapping[str, Any] = example.provenance
        parts = [example.id, example.difficulty, example.question, example.ground_truth]
        parts += [str(kept.get("image_digest")), json.dumps(kept.get("alternatives"))]
        digest.update(json.dumps([*parts, kept.get("answer_type")]).encode())
    return digest.hexdigest()
