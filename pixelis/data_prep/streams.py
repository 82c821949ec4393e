"""Streams of chunks of rows: generated from a source, or imported from the user's files."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from pixelis.data.example import Example
from pixelis.data.store import ROWS_IN_BATCH
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.importing import (
    Input,
    Record,
    RejectedError,
    Rejection,
    convert,
    read_records,
)
from pixelis.data_prep.output_folder import REJECTED_FILE
from pixelis.data_prep.parallel import map_ordered
from pixelis.data_prep.rows import Chunk, RowBuilder
from pixelis.data_prep.sources import Source
from pixelis.errors import DataError

# Records of a chunk: some ten megabytes of photographs.
RECORDS_IN_CHUNK = 16
# Limit of a chunk's size: each worker has several chunks waiting.
BYTES_IN_CHUNK = 32 << 20
# Attempts to replace an example that equals an earlier one.
MAX_SALT = 50


def _split_duplicates(chunk: Chunk, seen: set[int]) -> tuple[Chunk, list[int]]:
    """Return a chunk without duplicates of earlier examples, and the duplicates' positions."""
    kept: list[int] = []
    twice: list[int] = []
    for position, info in enumerate(chunk.infos):
        (twice if info.key in seen else kept).append(position)
        seen.add(info.key)
    return (chunk.take(kept) if twice else chunk), twice


def _write_rejections(file: TextIO, rejections: Iterable[Rejection]) -> None:
    for rejection in rejections:
        file.write(json.dumps(asdict(rejection)) + "\n")


@dataclass(frozen=True, slots=True)
class PlannedExample:
    """The number, task and sample type of an example to generate."""

    index: int
    task: str
    sample_type: str


@dataclass(frozen=True)
class Generator:
    """A function that generates the planned examples of a chunk; sent to each worker."""

    seed: int
    source: Source
    rows: RowBuilder

    def __call__(self, planned: Sequence[PlannedExample], salt: int = 0) -> Chunk:
        """Generate the examples of a chunk; another salt gives other examples."""
        examples = (
            generate_example(
                seed=self.seed,
                index=each.index,
                task=each.task,
                sample_type=each.sample_type,
                source=self.source,
                salt=salt,
            )
            for each in planned
        )
        return self.rows.build(examples, [])


@dataclass
class GeneratedStream:
    """A stream of exactly the planned examples, without duplicates.

    Attributes:
        generate: generates a chunk.
        planned: the examples to generate.
        num_workers: number of processes.
        rejected: reason -> number of the source's records that could not be used.
        left_out: task that the source does not support -> reason.
    """

    generate: Generator
    planned: Sequence[PlannedExample]
    num_workers: int
    rejected: Counter[str] = field(default_factory=Counter)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """The tasks that are left out, with the reason, one per line."""
        return "\n".join(f"{task} is left out: {why}" for task, why in self.left_out.items())

    @property
    def num_records(self) -> int:
        """The number of records that the source has read; 0 for a source without files."""
        return int(getattr(self.generate.source, "num_records", 0))

    @property
    def total(self) -> int | None:
        """How many examples there will be."""
        return len(self.planned)

    def describe_source(self) -> Mapping[str, Any]:
        """Return a description of the source, for the summary."""
        return {"name": self.generate.source.name, "tasks_left_out": sorted(self.left_out)}

    def read(self, folder: Path) -> Iterator[Chunk]:
        """Make the chunks; what the source rejected goes to `rejected.jsonl` in the folder.

        Raises:
            DataError: when the source has too few different examples of a task.
        """
        rejections: Sequence[Rejection] = getattr(self.generate.source, "rejections", ())
        if rejections:
            with (folder / REJECTED_FILE).open("w", encoding="utf-8") as file:
                _write_rejections(file, rejections)
            self.rejected.update(rejection.reason for rejection in rejections)
        seen: set[int] = set()
        starts = range(0, len(self.planned), ROWS_IN_BATCH)
        parts = [self.planned[start : start + ROWS_IN_BATCH] for start in starts]
        chunks = map_ordered(self.generate, parts, self.num_workers, folder)
        for planned, chunk in zip(parts, chunks, strict=True):
            kept, twice = _split_duplicates(chunk, seen)
            yield kept
            for position in twice:
                yield self._make_another(planned[position], seen)

    def _make_another(self, planned: PlannedExample, seen: set[int]) -> Chunk:
        for salt in range(1, MAX_SALT + 1):
            chunk, twice = _split_duplicates(self.generate([planned], salt), seen)
            if not twice:
                return chunk
        raise DataError(
            f"the source {self.generate.source.name} has too few different {planned.task} examples "
            f"of type {planned.sample_type}: number {planned.index + 1} of {len(self.planned)} "
            f"came out as an earlier one {MAX_SALT + 1} times; lower num_samples or add images"
        )


@dataclass(frozen=True)
class Importer:
    """Converts the raw records of a chunk; sent to each worker.

    Attributes:
        folder: the folder of the records' images.
        record_format: see `pixelis.data_prep.importing`.
        max_length: the largest number of tokens of an example; None: they are not counted.
        count_tokens: counts the tokens of an example; needed if there is a max_length.
    """

    folder: Path
    record_format: str
    rows: RowBuilder
    max_length: int | None = None
    count_tokens: Callable[[Example], int] | None = None

    def __call__(self, records: Sequence[Record]) -> Chunk:
        """Convert the records of a chunk."""
        rejections: list[Rejection] = []
        return self.rows.build(self._examples(records, rejections), rejections)

    def _examples(
        self, records: Sequence[Record], rejections: list[Rejection]
    ) -> Iterator[Example]:
        for record in records:
            try:
                yield from convert(
                    record,
                    folder=self.folder,
                    record_format=self.record_format,
                    count_tokens=self.count_tokens,
                    max_length=self.max_length,
                )
            except RejectedError as error:
                rejections.append(error.at(record.file, record.line))


@dataclass
class ImportedStream:
    """A stream of the usable records of the user's files; the others go to a file.

    Attributes:
        convert: converts the records of a chunk.
        source: the files.
        num_workers: number of processes.
        rejected: reason -> number of records.
        num_records: number of records read so far.
    """

    convert: Importer
    source: Input
    num_workers: int
    rejected: Counter[str] = field(default_factory=Counter)
    num_records: int = 0
    total: int | None = None

    @property
    def description(self) -> str:
        """The detected format of the input, in one line."""
        return self.source.describe()

    def describe_source(self) -> Mapping[str, Any]:
        """Return a description of the source, for the summary."""
        return {
            "name": "input",
            "format": self.source.format,
            "files": [path.name for path in self.source.files],
            "records": self.num_records,
        }

    def read(self, folder: Path) -> Iterator[Chunk]:
        """Convert the chunks; what is rejected goes to `rejected.jsonl` in the folder."""
        seen: set[int] = set()
        with (folder / REJECTED_FILE).open("w", encoding="utf-8") as file:
            for chunk in map_ordered(self.convert, self._parts(), self.num_workers, folder):
                kept, twice = _split_duplicates(chunk, seen)
                rejections = [*chunk.rejections, *_reject_duplicates(chunk.batch, twice)]
                _write_rejections(file, rejections)
                self.rejected.update(rejection.reason for rejection in rejections)
                yield kept

    def _parts(self) -> Iterator[list[Record]]:
        """Divide the records: a part is bounded in number and, unless it is one record, in size."""
        part: list[Record] = []
        size = 0
        for record in read_records(self.source):
            self.num_records += 1
            size += record.size
            if part and (len(part) == RECORDS_IN_CHUNK or size > BYTES_IN_CHUNK):
                yield part
                part, size = [], record.size
            part.append(record)
        if part:
            yield part


def _reject_duplicates(batch: pa.RecordBatch, positions: Sequence[int]) -> list[Rejection]:
    """Return one rejection per record, even if several of its examples are duplicates."""
    rejections: dict[tuple[str, int], Rejection] = {}
    for position in positions:
        provenance = json.loads(batch.column("provenance")[position].as_py())
        example_id = batch.column("id")[position].as_py()
        source = str(provenance["file"]), int(provenance["line"])
        detail = f"the id {example_id!r:.80} was seen before"
        rejections.setdefault(source, Rejection(*source, "duplicate_id", detail))
    return list(rejections.values())
