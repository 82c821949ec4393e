"""Prepare a data folder: configuration -> examples -> splits -> difficulty -> parquet files.

Workers generate or import the examples in chunks, which are kept on disk until every score is
known. In memory are a few chunks and about a hundred bytes per example.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc

from pixelis.config import DataPrepConfig, flatten
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data.store import SCHEMA, SUMMARY_FILE, GroupedWriter, difficulty_file, from_row
from pixelis.data_prep.corrupt import Corruption
from pixelis.data_prep.difficulty import AnswerLosses, build_scorer
from pixelis.data_prep.figures import EXAMPLES_IN_ROW, difficulty_figure, examples_figure
from pixelis.data_prep.grading import choose_spread, correlate, grade
from pixelis.data_prep.output_folder import (
    DIFFICULTY_FIGURE,
    EXAMPLES_FIGURE,
    REJECTED_FILE,
    check_output_folder,
)
from pixelis.data_prep.rows import facts_of, with_column
from pixelis.data_prep.streams import CountTokens, Stream, open_stream
from pixelis.data_prep.summary import summarise
from pixelis.errors import DataError
from pixelis.files import file_sha256, folder_bytes, staged_folder

# Keys that change the path and the speed, but not the content of the data.
NOT_CONTENT = ("output_dir", "num_workers")
# The rows until their difficulty is known.
ROWS_FILE = ".rows.arrow"

# Opens a progress bar (title, total or None); yields a function that advances it.
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


def no_progress(what: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda count: None)


def prepare_folder(
    config: DataPrepConfig,
    out: Path,
    *,
    progress: Progress = no_progress,
    answer_losses: AnswerLosses | None = None,
    count_tokens: CountTokens | None = None,
    stream: Stream | None = None,
) -> dict[str, Any]:
    """Generate or import the data of a configuration into `out`; return the summary.

    The files are a function of the configuration without `NOT_CONTENT`, and of the input's content.
    At every moment `out` has the complete old files or the complete new ones.

    Args:
        config: the checked configuration.
        out: the folder that is created or replaced. Of several processes, one at a time may do it.
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
    frames: list[pd.DataFrame] = []

    def needed(folder: Path) -> float:
        """Estimate the bytes of the finished folder and of the rows beside it."""
        done = sum(map(len, frames))
        share = max(1.0, (stream.total or 0) / done) if done else 1.0
        return 2 * share * folder_bytes(folder)

    try:
        with staged_folder(out.resolve(), needed) as folder:
            with (
                pa.OSFile(str(folder / ROWS_FILE), "wb") as file,
                pa.ipc.new_stream(file, SCHEMA) as writer,
                progress("examples", stream.total) as advance,
            ):
                for batch, _ in stream.read(folder):
                    if config.difficulty.scorer == "model":
                        batch = _score_by_model(batch, answer_losses)
                    if batch.num_rows:
                        writer.write_batch(batch)
                        frames.append(facts_of(batch))
                    advance(batch.num_rows)
            _check_rejected(stream, sum(map(len, frames)), config, out, folder)
            summary = _finish(
                stream,
                pd.concat(frames, ignore_index=True),
                config,
                folder,
                progress,
                answer_losses,
            )
    except OSError as error:
        raise DataError(f"output_dir {out} cannot be written: {error.strerror or error}") from error
    _kept_rejections(out).unlink(missing_ok=True)
    return summary


def _finish(
    stream: Stream,
    facts: pd.DataFrame,
    config: DataPrepConfig,
    folder: Path,
    progress: Progress,
    answer_losses: AnswerLosses | None,
) -> dict[str, Any]:
    """Grade the rows, write the files of the folder, and return the summary."""
    thresholds = grade(facts, config)
    limit = config.difficulty.correlation_samples if answer_losses is not None else 0
    correlated = choose_spread(facts, limit, config.seed)
    shown = {
        difficulty: choose_spread(
            facts[facts["difficulty"] == difficulty], EXAMPLES_IN_ROW, config.seed
        )
        for difficulty in DIFFICULTIES
    }
    wanted = set(correlated).union(*shown.values())
    corruption = Corruption(facts, config.corrupt, config.seed, folder / ROWS_FILE)
    chosen = _write_files(folder, facts["difficulty"].tolist(), wanted, corruption)
    correlation = None
    if answer_losses is not None and correlated:
        with progress("rank correlation", len(correlated)) as advance:
            examples = [chosen[index][0] for index in correlated]
            correlation = correlate(examples, config, answer_losses)
            advance(len(examples))
    difficulty_figure(facts, thresholds).savefig(folder / DIFFICULTY_FIGURE)
    pictures = {name: [chosen[index][1] for index in indices] for name, indices in shown.items()}
    examples_figure(pictures).savefig(folder / EXAMPLES_FIGURE)
    summary = summarise(
        facts,
        config={k: v for k, v in flatten(config).items() if k not in NOT_CONTENT},
        thresholds=thresholds,
        correlation=correlation,
        rejected=stream.rejected,
        corrupted=corruption.counts,
        source=stream.source,
    )
    names = map(difficulty_file, DIFFICULTIES)
    summary["sha256"] = {name: file_sha256(folder / name) for name in names}
    text = json.dumps(summary, indent=2) + "\n"
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    return summary


def _score_by_model(batch: pa.RecordBatch, answer_losses: AnswerLosses | None) -> pa.RecordBatch:
    """Replace the composite scores of rows by the base model's."""
    scorer = build_scorer("model", weights={}, answer_losses=answer_losses)
    scores = scorer([from_row(row) for row in batch.to_pylist()])
    provenance = [
        json.dumps(
            json.loads(text) | {"difficulty_components": dict(score.components)}, sort_keys=True
        )
        for text, score in zip(batch.column("provenance").to_pylist(), scores, strict=True)
    ]
    batch = with_column(batch, "difficulty_score", [score.value for score in scores])
    return with_column(batch, "provenance", provenance)


def _kept_rejections(out: Path) -> Path:
    """Return the file next to `out` for the reasons when the complete input is refused."""
    return out.resolve().with_name(f"{out.resolve().name}.{REJECTED_FILE}")


def _check_rejected(
    stream: Stream, num_examples: int, config: DataPrepConfig, out: Path, folder: Path
) -> None:
    """Refuse an input with too many rejections; save their reasons next to `out`."""
    rejected, total = stream.rejected.total(), stream.num_records
    if not num_examples and not total:
        raise DataError(f"input {config.input} holds no records")
    if num_examples and (not total or rejected <= config.max_rejected * total):
        return
    kept = _kept_rejections(out)
    os.replace(folder / REJECTED_FILE, kept)
    reasons = ", ".join(f"{count} {reason}" for reason, count in stream.rejected.most_common())
    told = stream.source.get("told", {}).items()
    reasons += "".join(f"; {text}, records: {count}" for text, count in told)
    allowed = f"more than max_rejected {config.max_rejected:g} allows" if num_examples else "all"
    raise DataError(
        f"{rejected} of {total} records of {config.input} were rejected ({rejected / total:.1%}), "
        f"{allowed}: {reasons}; see {kept}"
    )


def _write_files(
    folder: Path, difficulties: Sequence[str], wanted: set[int], corruption: Corruption
) -> dict[int, tuple[Example, Example]]:
    """Move the rows to the file of their difficulty.

    Returns:
        The wanted rows as examples, before and after the corruption.
    """
    chosen = {}
    start = 0
    with ExitStack() as stack:
        writers = {
            difficulty: stack.enter_context(GroupedWriter(folder / difficulty_file(difficulty)))
            for difficulty in DIFFICULTIES
        }
        file = stack.enter_context(pa.OSFile(str(folder / ROWS_FILE), "rb"))
        for batch in pa.ipc.open_stream(file):
            end = start + batch.num_rows
            batch = with_column(batch, "difficulty", difficulties[start:end])
            clean, batch = batch, corruption.apply(batch, start)
            for difficulty, writer in writers.items():
                writer.write(batch.filter(pc.equal(batch.column("difficulty"), difficulty)))
            for index in sorted(wanted.intersection(range(start, end))):
                before, after = (
                    from_row(rows.slice(index - start, 1).to_pylist()[0]) for rows in (clean, batch)
                )
                chosen[index] = before, after
            start = end
    (folder / ROWS_FILE).unlink()
    return chosen
