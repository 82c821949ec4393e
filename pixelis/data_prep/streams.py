"""Streams of chunks of rows: generated from a source, or imported from the user's files."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from pixelis.config import DataPrepConfig, ToolConfig
from pixelis.data.example import Example
from pixelis.data.store import ROWS_IN_BATCH
from pixelis.data_prep.difficulty import COMPONENTS
from pixelis.data_prep.generate import NoExampleError, generate_example
from pixelis.data_prep.importing import (
    REPLAYS,
    Ids,
    Input,
    Record,
    RejectedError,
    Rejection,
    check_tools,
    content_digest,
    convert,
    open_input,
    read_records,
)
from pixelis.data_prep.output_folder import REJECTED_FILE
from pixelis.data_prep.parallel import map_ordered
from pixelis.data_prep.plan import PlannedExample, plan_photographs, plan_samples, sample_ratios
from pixelis.data_prep.rows import (
    Chunk,
    ExplainRefusal,
    RowBuilder,
    settle_ids,
    without_refused,
)
from pixelis.data_prep.selection import Selection
from pixelis.data_prep.sources import Source, open_source
from pixelis.data_prep.sources.coco import is_coco
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.errors import ConfigError, DataError

# Records of a chunk: some ten megabytes of photographs.
RECORDS_IN_CHUNK = 16
# Limit of a chunk's size: each worker has several chunks waiting.
BYTES_IN_CHUNK = 32 << 20
# Attempts to replace an example that equals an earlier one, or whose answer is too frequent.
MAX_SALT = 50
# Most of what rejections tell that the summary counts: a file may name any number of tools.
MAX_TOLD = 10

CountTokens = Callable[[Example], int]


def choose_tasks(tasks: Sequence[str] | None, source: Source) -> tuple[str, ...]:
    """Return the named tasks if the source supports them, or all supported tasks if none is named.

    Raises:
        ConfigError: when the source does not support a task, or it is unknown.
    """
    for task in tasks or ():
        if task not in source.tasks:
            raise ConfigError(
                f"tasks must be among {', '.join(source.tasks)}, got {task!r}, "
                f"which the source {source.name} does not support"
            )
    return tuple(tasks or source.tasks)


def find_possible_tasks(
    source: Source, tasks: Sequence[str], sample_types: Sequence[str], seed: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the tasks for which the source gives every sample type, and the reason for others.

    Annotations decide which tasks suit an image, but whether the operations find the annotated
    objects in its pixels must be tried.

    Raises:
        DataError: when no task is left.
    """
    left_out: dict[str, str] = {}
    for task in tasks:
        try:
            for kind in sample_types:
                generate_example(seed=seed, index=0, task=task, sample_type=kind, source=source)
        except DataError as error:
            left_out[task] = str(error)
    kept = tuple(task for task in tasks if task not in left_out)
    if not kept:
        raise DataError(f"no task can be made: {'; '.join(left_out.values())}")
    return kept, left_out


@dataclass
class Stream(ABC):
    """A stream of chunks of rows without duplicates, which can be read once."""

    make_chunk: Callable[..., Chunk]  # makes the rows of a part in a worker
    num_workers: int  # number of processes
    source: dict[str, Any]  # description of the source for the summary, with its `name`
    description: str = ""  # the same for the console; may be empty
    total: int | None = None  # how many examples there will be, if known
    num_records: int = 0  # number of records of the user's files read so far
    rejected: Counter[str] = field(default_factory=Counter)  # reason -> number of records
    # What the rejections tell besides, such as a tool without a mapping -> number of records.
    told: Counter[str] = field(default_factory=Counter)

    @abstractmethod
    def read(self, folder: Path) -> Iterator[Chunk]:
        """Make the chunks; what is rejected goes to `rejected.jsonl` in the folder.

        Raises:
            DataError: when the source has too few different examples.
        """

    def _write(self, file: TextIO, rejections: Iterable[Rejection]) -> None:
        for rejection in rejections:
            file.write(json.dumps(rejection.as_row()) + "\n")
            self.rejected[rejection.reason] += 1
            place = rejection.line if rejection.id is None else f"id {rejection.id}"
            first = f"{rejection.file}:{place}: {rejection.detail:.120}"
            self.source.setdefault("first_rejected", {}).setdefault(rejection.reason, first)
            if rejection.told:
                self.told[rejection.told] += 1


@dataclass
class GeneratedStream(Stream):
    """A stream of exactly the planned examples; what cannot be kept is replaced.

    A task that has no other example of a sample type gives its share to the other tasks, and a type
    that no task has gives its share to `positive`.
    """

    planned: Sequence[PlannedExample] = ()  # the examples to generate
    tasks: Sequence[str] = ()  # all tasks that may be generated
    max_answer_share: float = 1.0  # largest share of a task's examples with one answer
    rejections: Sequence[Rejection] = ()  # records of the source that could not be used

    def read(self, folder: Path) -> Iterator[Chunk]:
        """See Stream."""
        if self.rejections:
            with (folder / REJECTED_FILE).open("w", encoding="utf-8") as file:
                self._write(file, self.rejections)
        selection = Selection(self.max_answer_share)
        ran_out: set[tuple[str, str]] = set()
        starts = range(0, len(self.planned), ROWS_IN_BATCH)
        parts = [self.planned[start : start + ROWS_IN_BATCH] for start in starts]
        chunks = map_ordered(self.make_chunk, parts, self.num_workers)
        for part, chunk in zip(parts, chunks, strict=True):
            found = {_index_of(row): row for row in _rows(chunk.batch)}
            kept = []
            for planned in part:  # in order, so that no example depends on a later one
                row = found.get(planned.index)
                if row is None or not selection.keep(row):
                    row = self._replace(planned, selection, ran_out)
                kept.append(row)
            yield chunk._replace(batch=pa.concat_batches(kept))
        asked = Counter(name for each in self.planned for name in (each.task, each.sample_type))
        self.source["ran_out"] = {
            name: {"planned": asked[name], "made": selection.made[name]}
            for name in sorted(asked)
            if selection.made[name] < asked[name]
        }

    def _replace(
        self, planned: PlannedExample, selection: Selection, ran_out: set[tuple[str, str]]
    ) -> pa.RecordBatch:
        """Make another example of the type, of the same task or of the one with the fewest so far.

        Where no task has one, it is a positive one. `ran_out` holds the tasks and types without
        another example.
        """
        made = selection.made
        tasks = sorted(self.tasks, key=lambda task: (task != planned.task, made[task]))
        kinds = dict.fromkeys((planned.sample_type, "positive"))
        for kind, task in product(kinds, tasks):
            if (task, kind) in ran_out:
                continue
            for salt in range(1, MAX_SALT + 1):
                batch = self.make_chunk([replace(planned, task=task, sample_type=kind)], salt).batch
                if not batch.num_rows:
                    break
                if selection.keep(batch):
                    return batch
            ran_out.add((task, kind))
        counts = ", ".join(f"{task} {made[task]}" for task in sorted(self.tasks) if made[task])
        share = self.max_answer_share
        limit = f"; of a task at most {share:.0%} with one answer" if share < 1 else ""
        raise DataError(
            f"num_samples must be at most {planned.index}, got {len(self.planned)} (the source "
            f"{self.source['name']} has no other example after {counts}{limit}); "
            "lower it or add images"
        )


@dataclass
class ImportedStream(Stream):
    """A stream of the usable records of the user's files; duplicates are rejected."""

    records: Iterable[Record] = ()
    explain_refusal: ExplainRefusal | None = None  # None: the base is not known

    def read(self, folder: Path) -> Iterator[Chunk]:
        """See Stream."""
        ids = Ids()
        calls = dict.fromkeys(REPLAYS, 0)
        with (folder / REJECTED_FILE).open("w", encoding="utf-8") as file:
            for made in map_ordered(self.make_chunk, self._parts(), self.num_workers):
                chunk = without_refused(made, self.explain_refusal)
                kept, rejections = settle_ids(chunk, ids)
                self._write(file, [*chunk.rejections, *rejections])
                for text in kept.batch.column("provenance").to_pylist():
                    for word in json.loads(text)["replays"]:
                        calls[word] += 1
                yield kept
        told = dict(self.told.most_common(MAX_TOLD))
        self.source |= {"records": self.num_records, "calls": calls, "told": told}

    def _parts(self) -> Iterator[list[Record]]:
        """Divide the records: a part is bounded in number and, unless it is one record, in size."""
        part: list[Record] = []
        size = 0
        for record in self.records:
            self.num_records += 1
            size += record.size
            if part and (len(part) == RECORDS_IN_CHUNK or size > BYTES_IN_CHUNK):
                yield part
                part, size = [], record.size
            part.append(record)
        if part:
            yield part


def open_stream(
    config: DataPrepConfig,
    count_tokens: CountTokens | None,
    explain_refusal: ExplainRefusal | None = None,
) -> Stream:
    """Open the stream of a configuration: check its files, without reading any chunk.

    Args:
        config: the checked configuration.
        count_tokens: counts the tokens of an example; needed if `max_length` is set. Sent to
            workers.
        explain_refusal: see ExplainRefusal; None where the base is not known.

    Raises:
        ConfigError: when a task is unknown, or the configuration does not suit the input.
        DataError: when the input cannot be used.
    """
    rows = RowBuilder(
        fractions=(config.validation_fraction, config.test_fraction),
        scorer=config.difficulty.scorer,
        weights={name: getattr(config.difficulty, name) for name in COMPONENTS},
    )
    path = None if config.input is None else Path(config.input)
    images = None if config.image_folder is None else Path(config.image_folder)
    is_photographs = config.source == "coco" or (path is not None and is_coco(path))
    if path is None or is_photographs:
        name = "coco" if is_photographs else config.source
        return _open_source(config, open_source(name, path=path, image_folder=images), rows)
    check_tools(config.tools)
    found = open_input(path, input_format=config.input_format, images=images)
    return open_import(
        found,
        rows,
        config.num_workers,
        config.max_length,
        count_tokens,
        config.tools,
        explain_refusal,
    )


def open_import(
    found: Input,
    rows: RowBuilder,
    num_workers: int,
    max_length: int | None = None,
    count_tokens: CountTokens | None = None,
    tools: Mapping[str, ToolConfig] | None = None,
    explain_refusal: ExplainRefusal | None = None,
) -> ImportedStream:
    """Return the stream of the records of an input; see `import_chunk`."""
    make_chunk = partial(
        import_chunk,
        found=found,
        rows=rows,
        max_length=max_length,
        count_tokens=count_tokens,
        tools=tools,
    )
    names = [path.name for path in found.files]
    return ImportedStream(
        make_chunk,
        num_workers,
        {"name": "input", "format": found.format, "files": names},
        found.describe(),
        records=read_records(found),
        explain_refusal=explain_refusal,
    )


def _open_source(config: DataPrepConfig, source: Source, rows: RowBuilder) -> GeneratedStream:
    tasks, ratios = choose_tasks(config.tasks, source), sample_ratios(config)
    left_out: dict[str, str] = {}
    plan = plan_samples
    if not isinstance(source, DrawnScenes):
        plan = plan_photographs
        wanted = ["positive", *(kind for kind, ratio in ratios.items() if ratio)]
        tasks, left_out = find_possible_tasks(source, tasks, wanted, config.seed)
        if config.tasks and left_out:
            raise DataError("; ".join(left_out.values()))
    planned = plan(config.num_samples, config.seed, tasks, ratios)
    return GeneratedStream(
        partial(generate_chunk, seed=config.seed, source=source, rows=rows),
        config.num_workers,
        {"name": source.name, "tasks_left_out": sorted(left_out)},
        "\n".join(f"{task} is left out: {why}" for task, why in left_out.items()),
        len(planned),
        getattr(source, "num_records", 0),
        planned=planned,
        tasks=tasks,
        max_answer_share=getattr(source, "max_answer_share", 1.0),
        rejections=getattr(source, "rejections", ()),
    )


def generate_chunk(
    planned: Sequence[PlannedExample], salt: int = 0, *, seed: int, source: Source, rows: RowBuilder
) -> Chunk:
    """Generate the examples of a chunk that the source has; another salt gives other examples."""

    def examples() -> Iterator[Example]:
        for each in planned:
            with suppress(NoExampleError):
                yield generate_example(**asdict(each), seed=seed, source=source, salt=salt)

    return Chunk(rows.build(examples()), [])


def import_chunk(
    records: Sequence[Record],
    *,
    found: Input,
    rows: RowBuilder,
    max_length: int | None = None,
    count_tokens: CountTokens | None = None,
    tools: Mapping[str, ToolConfig] | None = None,
) -> Chunk:
    """Convert the records of a chunk.

    Args:
        records: the raw records.
        found: the input with the folder of their images and their format.
        rows: builds the rows.
        max_length: the largest number of tokens of an example; None: they are not counted.
        count_tokens: counts the tokens of an example; needed if there is a max_length.
        tools: what the tools of the records are here, by name; others are called as ours.
    """
    rejections: list[Rejection] = []
    contents: list[str] = []

    def examples() -> Iterator[Example]:
        for record in records:
            try:
                for example in convert(
                    record,
                    folder=found.folder,
                    record_format=found.format,
                    tools=tools,
                    count_tokens=count_tokens,
                    max_length=max_length,
                ):
                    contents.append(content_digest(example))
                    yield example
            except RejectedError as error:
                rejections.append(error.at(record.file, record.line))

    return Chunk(rows.build(examples()), rejections, contents)


def _rows(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    return [batch.slice(position, 1) for position in range(batch.num_rows)]


def _index_of(row: pa.RecordBatch) -> int:
    return int(json.loads(row.column("provenance")[0].as_py())["index"])
