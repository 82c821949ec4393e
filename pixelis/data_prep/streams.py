"""Where chunks of examples come from: made from a source, or imported from the user's files."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from pixelis.data.store import ROWS_IN_BATCH
from pixelis.data_prep.importing import Input, Record, Rejection, read_records
from pixelis.data_prep.output_folder import REJECTED_FILE
from pixelis.data_prep.produce import Generate, Import, Made, Plan
from pixelis.data_prep.workers import map_ordered
from pixelis.errors import DataError

# Records of a chunk: of photographs, some ten megabytes.
RECORDS_IN_CHUNK = 16
# A chunk ends before it takes more: several of them wait for each worker.
BYTES_IN_CHUNK = 32 << 20
# How often another example is tried where one came out as an earlier one did.
MAX_SALT = 50


def _without(made: Made, seen: set[int]) -> tuple[Made, list[int]]:
    """A chunk without examples that were seen before, and the positions of those."""
    kept: list[int] = []
    twice: list[int] = []
    for position, meta in enumerate(made.metas):
        (twice if meta.key in seen else kept).append(position)
        seen.add(meta.key)
    if not twice:
        return made, twice
    batch = made.batch.take(pa.array(kept, pa.int64()))
    return Made(batch, [made.metas[i] for i in kept], made.rejections), twice


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _record_chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Chunks of records, bounded in number and, unless it is one record, in what they take."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        size += record.size
        if chunk and (len(chunk) == RECORDS_IN_CHUNK or size > BYTES_IN_CHUNK):
            yield chunk
            chunk, size = [], record.size
        chunk.append(record)
    if chunk:
        yield chunk


def _write_rejections(file: TextIO, rejections: Iterable[Rejection]) -> None:
    for rejection in rejections:
        file.write(json.dumps(asdict(rejection)) + "\n")


@dataclass
class GeneratedStream:
    """Exactly the planned examples, no two alike.

    Attributes:
        generate: makes a chunk.
        plans: what is to be made.
        num_workers: processes.
        rejected: reason -> how many of the source's own records could not be used.
        left_out: task that the source cannot give -> why.
    """

    generate: Generate
    plans: Sequence[Plan]
    num_workers: int
    rejected: Counter[str] = field(default_factory=Counter)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def report(self) -> str:
        """Which tasks are left out, and why: a line each; empty where none is."""
        return "\n".join(f"{task} is left out: {why}" for task, why in self.left_out.items())

    @property
    def num_records(self) -> int:
        """How many records of its own the source looked at; 0 where it has none."""
        return int(getattr(self.generate.source, "num_records", 0))

    @property
    def total(self) -> int | None:
        """How many examples there will be."""
        return len(self.plans)

    def describe(self) -> Mapping[str, Any]:
        """What the data was made from."""
        return {"name": self.generate.source.name, "tasks_left_out": sorted(self.left_out)}

    def read(self, folder: Path) -> Iterator[Made]:
        """Make the chunks.

        Raises:
            DataError: when the source has too few different examples of a task.
        """
        rejections: Sequence[Rejection] = getattr(self.generate.source, "rejections", ())
        if rejections:
            with (folder / REJECTED_FILE).open("w", encoding="utf-8") as file:
                _write_rejections(file, rejections)
            self.rejected.update(rejection.reason for rejection in rejections)
        seen: set[int] = set()
        chunks = list(_chunks(self.plans, ROWS_IN_BATCH))
        made = map_ordered(self.generate, chunks, self.num_workers)
        for chunk, found in zip(chunks, made, strict=True):
            kept, twice = _without(found, seen)
            yield kept
            for position in twice:
                yield self._another(chunk[position], seen)

    def _another(self, plan: Plan, seen: set[int]) -> Made:
        for salt in range(1, MAX_SALT + 1):
            found, twice = _without(self.generate([plan], salt), seen)
            if not twice:
                return found
        raise DataError(
            f"the source {self.generate.source.name} has too few different {plan.task} examples "
            f"of type {plan.sample_type}: number {plan.index + 1} of {len(self.plans)} came out as "
            f"an earlier one {MAX_SALT + 1} times; lower num_samples or add images"
        )


@dataclass
class ImportedStream:
    """Whatever records of the user's files can be used, and a file of those that cannot.

    Attributes:
        convert: makes a chunk.
        source: the files.
        num_workers: processes.
        rejected: reason -> how many records.
        num_records: how many were read.
    """

    convert: Import
    source: Input
    num_workers: int
    rejected: Counter[str] = field(default_factory=Counter)
    num_records: int = 0
    total: int | None = None

    @property
    def report(self) -> str:
        """How the input was understood, in one line."""
        return self.source.describe()

    def describe(self) -> Mapping[str, Any]:
        """What the data was made from."""
        return {
            "name": "input",
            "format": self.source.format,
            "files": [path.name for path in self.source.files],
            "records": self.num_records,
        }

    def _count(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self.num_records += 1
            yield record

    def read(self, folder: Path) -> Iterator[Made]:
        """Convert the chunks; what is rejected goes to `rejected.jsonl` in the folder."""
        seen: set[int] = set()
        chunks = _record_chunks(self._count(read_records(self.source)))
        with (folder / REJECTED_FILE).open("w", encoding="utf-8") as file:
            for found in map_ordered(self.convert, chunks, self.num_workers):
                kept, twice = _without(found, seen)
                rejections = [*found.rejections, *_duplicates(found.batch, twice)]
                _write_rejections(file, rejections)
                self.rejected.update(rejection.reason for rejection in rejections)
                yield kept


def _duplicates(batch: pa.RecordBatch, positions: Sequence[int]) -> list[Rejection]:
    """One for each record, of however many examples."""
    found: dict[tuple[str, int], Rejection] = {}
    for position in positions:
        provenance = json.loads(batch.column("provenance")[position].as_py())
        example_id = batch.column("id")[position].as_py()
        place = str(provenance["file"]), int(provenance["line"])
        detail = f"the id {example_id!r:.80} was seen before"
        found.setdefault(place, Rejection(*place, "duplicate_id", detail))
    return list(found.values())
