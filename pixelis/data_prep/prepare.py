"""Prepare a data folder: configuration -> examples -> splits -> difficulty -> parquet files.

Workers generate or import the examples in chunks, which are kept on disk until every score is
known. In memory are a few chunks and about a hundred bytes per example.
"""

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pixelis.config import DataPrepConfig, flatten
from pixelis.curriculum.difficulty import COMPONENTS
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data.store import SCHEMA, SUMMARY_FILE, GroupedWriter, difficulty_file, from_row
from pixelis.data_prep.columns import Columns, RowsFile
from pixelis.data_prep.difficulty import AnswerLosses, build_scorer
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.grading import categorise, choose_examples, correlate, draw_figures
from pixelis.data_prep.importing import open_input
from pixelis.data_prep.output_folder import REJECTED_FILE, check_output_folder, staged_folder
from pixelis.data_prep.rows import RowBuilder, RowInfo
from pixelis.data_prep.sources import Source, open_source
from pixelis.data_prep.sources.coco import is_coco
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.data_prep.streams import (
    GeneratedStream,
    Generator,
    ImportedStream,
    Importer,
    PlannedExample,
)
from pixelis.data_prep.summary import summarise
from pixelis.data_prep.tasks import TASKS
from pixelis.errors import ConfigError, DataError
from pixelis.files import file_sha256

# Keys that change the path and the speed, but not the content of the data.
NOT_CONTENT = ("output_dir", "num_workers")

Stream = GeneratedStream | ImportedStream
# Opens a progress bar (title, total or None); yields a function that advances it.
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


def no_progress(what: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda count: None)


def plan_samples(
    num_samples: int, seed: int, tasks: Sequence[str], ratios: Mapping[str, float]
) -> list[PlannedExample]:
    """Plan every example: tasks in turn, sample types in exact shares, shuffled."""
    types = [name for name, ratio in ratios.items() for _ in range(round(ratio * num_samples))]
    types = types[:num_samples] + ["positive"] * (num_samples - len(types))
    random.Random(f"types:{seed}").shuffle(types)
    return [
        PlannedExample(index, tasks[index % len(tasks)], kind) for index, kind in enumerate(types)
    ]


def choose_tasks(tasks: Sequence[str] | None, source: Source) -> tuple[str, ...]:
    """Return the named tasks if the source supports them, or all supported tasks if none is named.

    Raises:
        ConfigError: when a task is unknown, or the source does not support it.
    """
    for task in tasks or ():
        if task not in TASKS:
            raise ConfigError(f"tasks must be among {', '.join(TASKS)}, got {task!r}")
        if task not in source.tasks:
            raise ConfigError(
                f"tasks of the source {source.name} must be among {', '.join(source.tasks)}, "
                f"got {task!r}"
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


def sample_ratios(config: DataPrepConfig) -> dict[str, float]:
    """Return the share of every sample type except `positive`, which gets the rest."""
    traps = config.trap_ratio / 2 if config.include_traps else 0.0
    return {
        "self_correction": config.self_correction_ratio,
        "outcome_negative": config.negative_ratio if config.include_negatives else 0.0,
        "trap_perceptual": traps,
        "trap_logical": traps,
    }


def prepare_folder(
    config: DataPrepConfig,
    out: Path,
    *,
    progress: Progress = no_progress,
    answer_losses: AnswerLosses | None = None,
    count_tokens: Callable[[Example], int] | None = None,
    stream: Stream | None = None,
) -> dict[str, Any]:
    """Generate or import the data of a configuration into `out`; return the summary.

    The files are a function of the configuration without `NOT_CONTENT`, and of the input's content.

    Args:
        config: the checked configuration.
        out: the folder that is created or replaced.
        progress: see Progress.
        answer_losses: computes the base model's loss of each example; None if neither the scorer
            `model` nor the rank correlation is configured.
        count_tokens: counts the tokens of an example; needed if `max_length` is set. Sent to
            workers.
        stream: the result of `open_stream`, if the caller has opened it; it can be read once.

    Raises:
        ConfigError: when a task is unknown, or the configuration does not suit the input.
        DataError: when the input cannot be used, too much of it was rejected, too few different
            examples can be made, or `out` is taken or cannot be written.
    """
    check_output_folder(out)
    stream = stream or open_stream(config, count_tokens)
    columns = Columns()
    with staged_folder(out, lambda: columns.estimate_bytes(stream.total)) as folder:
        with RowsFile(folder) as rows, progress("examples", stream.total) as advance:
            for chunk in stream.read(folder):
                batch, infos = chunk.batch, chunk.infos
                if config.difficulty.scorer == "model":
                    batch, infos = _score_by_model(batch, infos, answer_losses)
                for info in infos:
                    columns.add(info)
                rows.write(batch)
                columns.num_bytes += batch.nbytes
                advance(len(infos))
        _check_rejected(stream, columns, config, out, folder)
        difficulties, thresholds = categorise(columns, config)
        wanted = choose_examples(columns, difficulties, config)
        chosen = _write_files(rows, folder, difficulties, set().union(*wanted.values()))
        rows.path.unlink()
        correlation = None
        if answer_losses is not None and wanted["correlation"]:
            examples = [chosen[index] for index in wanted["correlation"]]
            with progress("rank correlation", len(examples)) as advance:
                correlation = correlate(examples, config, answer_losses)
                advance(len(examples))
        draw_figures(folder, columns, difficulties, thresholds, wanted, chosen)
        summary = summarise(
            columns.rows(difficulties),
            config={k: v for k, v in flatten(config).items() if k not in NOT_CONTENT},
            thresholds=thresholds,
            correlation=correlation,
            rejected=stream.rejected,
            source=stream.describe_source(),
        )
        digests = {d: file_sha256(folder / difficulty_file(d)) for d in DIFFICULTIES}
        summary["sha256"] = {difficulty_file(d): digest for d, digest in digests.items()}
        text = json.dumps(summary, indent=2) + "\n"
        (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    _kept_rejections(out).unlink(missing_ok=True)
    return summary


def open_stream(config: DataPrepConfig, count_tokens: Callable[[Example], int] | None) -> Stream:
    """Open the stream of a configuration: check its files, without reading any chunk.

    Raises:
        ConfigError: when a task is unknown, or the configuration does not suit the input.
        DataError: when the input cannot be used.
    """
    difficulty = config.difficulty
    rows = RowBuilder(
        fractions=(config.validation_fraction, config.test_fraction),
        scorer=difficulty.scorer,
        weights={name: getattr(difficulty, name) for name in COMPONENTS},
    )
    path = None if config.input is None else Path(config.input)
    images = None if config.image_folder is None else Path(config.image_folder)
    source_name = config.source
    if path is not None and source_name != "coco" and is_coco(path):
        source_name = "coco"
    if path is not None and source_name != "coco":
        source = open_input(path, input_format=config.input_format, images=images)
        convert = Importer(source.folder, source.format, rows, config.max_length, count_tokens)
        return ImportedStream(convert, source, config.num_workers)
    pictures = open_source(source_name, path=path, image_folder=images)
    tasks, ratios = choose_tasks(config.tasks, pictures), sample_ratios(config)
    left_out: dict[str, str] = {}
    if config.tasks is None and not isinstance(pictures, DrawnScenes):
        wanted = ["positive", *(name for name, ratio in ratios.items() if ratio)]
        tasks, left_out = find_possible_tasks(pictures, tasks, wanted, config.seed)
    plans = plan_samples(config.num_samples, config.seed, tasks, ratios)
    generate = Generator(config.seed, pictures, rows)
    return GeneratedStream(generate, plans, config.num_workers, left_out=left_out)


def _score_by_model(
    batch: pa.RecordBatch, infos: Sequence[RowInfo], answer_losses: AnswerLosses | None
) -> tuple[pa.RecordBatch, list[RowInfo]]:
    """Replace the composite scores of rows by the base model's."""
    scorer = build_scorer("model", weights={}, answer_losses=answer_losses)
    scores = scorer([from_row(row) for row in batch.to_pylist()])
    provenance = [
        json.dumps(
            {**json.loads(text), "difficulty_components": dict(score.components)}, sort_keys=True
        )
        for text, score in zip(batch.column("provenance").to_pylist(), scores, strict=True)
    ]
    batch = _with_column(batch, "difficulty_score", [score.value for score in scores])
    return _with_column(batch, "provenance", provenance), [
        info._replace(score=score.value, components=dict(score.components))
        for info, score in zip(infos, scores, strict=True)
    ]


def _with_column(batch: pa.RecordBatch, name: str, values: Sequence[Any]) -> pa.RecordBatch:
    index = SCHEMA.get_field_index(name)
    column = pa.array(values, SCHEMA.field(index).type)
    return batch.set_column(index, SCHEMA.field(index), column)


def _kept_rejections(out: Path) -> Path:
    """Return the file next to `out` for the reasons when the complete input is refused."""
    return out.resolve().with_name(f"{out.resolve().name}.{REJECTED_FILE}")


def _check_rejected(
    stream: Stream, columns: Columns, config: DataPrepConfig, out: Path, folder: Path
) -> None:
    """Refuse an input with too many rejections; save their reasons next to `out`."""
    rejected, total = stream.rejected.total(), stream.num_records
    if not len(columns) and not total:
        raise DataError(f"input {config.input} holds no records")
    if len(columns) and (not total or rejected <= config.max_rejected * total):
        return
    kept = _kept_rejections(out)
    os.replace(folder / REJECTED_FILE, kept)
    reasons = ", ".join(f"{count} {reason}" for reason, count in stream.rejected.most_common())
    allowed = f"more than max_rejected {config.max_rejected:g} allows" if len(columns) else "all"
    raise DataError(
        f"{rejected} of {total} records of {config.input} were rejected ({rejected / total:.1%}), "
        f"{allowed}: {reasons}; see {kept}"
    )


def _write_files(
    rows: RowsFile, folder: Path, difficulties: Sequence[str], wanted: set[int]
) -> dict[int, Example]:
    """Write the rows to the file of their difficulty; return the wanted ones as examples."""
    chosen = {}
    start = 0
    with ExitStack() as stack:
        writers = {
            difficulty: stack.enter_context(GroupedWriter(folder / difficulty_file(difficulty)))
            for difficulty in DIFFICULTIES
        }
        for batch in rows.read():
            end = start + batch.num_rows
            batch = _with_column(batch, "difficulty", difficulties[start:end])
            for difficulty, writer in writers.items():
                writer.write(batch.filter(pc.equal(batch.column("difficulty"), difficulty)))
            for index in range(start, end):
                if index in wanted:
                    chosen[index] = from_row(batch.slice(index - start, 1).to_pylist()[0])
            start = end
    return chosen
