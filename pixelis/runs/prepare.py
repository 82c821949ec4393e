"""One run of `data-prep`: make a data folder under a lock, and record how it was made."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from pyarrow.parquet import ParquetFile

from pixelis.config import DataPrepConfig, flatten
from pixelis.data.store import SUMMARY_FILE, data_files, from_row
from pixelis.data_prep.difficulty import AnswerLosses
from pixelis.data_prep.figures import side_by_side
from pixelis.data_prep.generate import describe_step
from pixelis.data_prep.output_folder import (
    DIFFICULTY_FIGURE,
    EXAMPLES_FIGURE,
    REJECTED_FILE,
    check_output_folder,
)
from pixelis.data_prep.prepare import prepare_folder
from pixelis.data_prep.streams import Stream, open_stream
from pixelis.data_prep.summary import format_summary
from pixelis.files import recover_folders
from pixelis.models.token_count import count_tokens, explain_refusal
from pixelis.progress import ProgressBar
from pixelis.runs.inputs import record_inputs
from pixelis.runs.missing_data import unrecorded_mark
from pixelis.tracking import (
    DATA_TAG,
    MlflowRecorder,
    data_tag,
    find_data_run,
    open_run,
    without_environment,
)

logger = logging.getLogger(__name__)

# Counts of the summary -> their names in MLflow's tables.
COUNTED = {
    "by_split_and_difficulty": "examples",
    "by_task": "task",
    "by_sample_type": "sample_type",
}
ROWS_SHOWN = 8


def make_data(config: DataPrepConfig, out: Path, *, missing_from: str | None = None) -> Any:
    """Make or import data in the folder `out`, record it in a run, and return the summary.

    If two processes need the same folder at once, the second one waits for the first. If a process
    was killed between writing the folder and recording it, the next one that needs it records it.

    Args:
        config: the configuration of the data.
        out: the data folder.
        missing_from: the file of `config`, if another run needs the data. Then a folder that exists
            and is recorded stays as it is, and the run that `mlflow run` opened is left to the
            other run. By default the folder is made anew.
    """
    check_output_folder(out)
    is_needed, mark = missing_from is not None, unrecorded_mark(out)
    with FileLock(out.with_name(f".{out.name}.lock")), ExitStack() as stack:
        if is_needed:
            stack.enter_context(without_environment())
            recover_folders(out)  # a kill while another folder replaced it
            if out.exists():
                if mark.exists():
                    _record_later(config, out)
                    mark.unlink()
                return None
            logger.info("%s does not exist: making it from %s", out, missing_from)
        counter = None
        if config.max_length is not None:
            counter = partial(count_tokens, config.difficulty.model_name)
        refusal = None
        if _uses_base(config):
            refusal = partial(explain_refusal, config.difficulty.model_name)
        stream = open_stream(config, counter, refusal)
        if stream.description:
            logger.info("%s", stream.description)
        answer_losses = _load_answer_losses(config)
        recorder = stack.enter_context(_open_run(config, _run_name(config, stream)))
        mark.touch()
        try:
            summary = prepare_folder(
                config, out, progress=_progress, answer_losses=answer_losses, stream=stream
            )
        except BaseException:
            mark.unlink(missing_ok=True)  # there is no new folder to record
            raise
        title = f"{summary['num_samples']} examples in {out}"
        print(format_summary(summary, title=title), flush=True)
        if summary["rejected"]:
            logger.info("file, line and reason of each: %s", out / REJECTED_FILE)
        record_data(recorder, out, summary)
        logger.info("%s", recorder.url_hint())
        stack.close()  # the run has ended when the mark goes
        mark.unlink(missing_ok=True)
    return summary


def _uses_base(config: DataPrepConfig) -> bool:
    """Return whether the base model is loaded: then it is known, and must take imported images."""
    return config.difficulty.correlation_samples > 0 or config.difficulty.scorer == "model"


def _load_answer_losses(config: DataPrepConfig) -> AnswerLosses | None:
    """Return the function that computes the base model's losses, if the configuration needs it."""
    if not _uses_base(config):
        return None
    from pixelis.evaluation.validation import build_answer_losses  # imports torch
    from pixelis.models.load import resolve_model

    resolve_model(config.difficulty.model_name)
    return build_answer_losses(config.difficulty.model_name)


def _open_run(config: DataPrepConfig, name: str) -> AbstractContextManager[MlflowRecorder]:
    return open_run(
        entry_point="data-prep",
        experiment="data_prep",
        run_name=name,
        params=flatten(config),
        tags={"pixelis.seed": str(config.seed)},
    )


def _record_later(config: DataPrepConfig, out: Path) -> None:
    """Record a folder whose run was killed before it recorded it, unless a run is found."""
    from pixelis.training.inputs import data_digest  # imports torch

    if find_data_run(data_digest(out)) is not None:
        return
    summary = json.loads((out / SUMMARY_FILE).read_text(encoding="utf-8"))
    logger.info("%s was made by a run that was killed before it told of it: recorded now", out)
    with _open_run(config, f"data-prep {out.name}, recorded later") as recorder:
        record_data(recorder, out, summary)


def _run_name(config: DataPrepConfig, stream: Stream) -> str:
    source = stream.source
    if source["name"] == "input":
        return f"data-prep {source['format']} of {Path(str(config.input)).name}"
    return f"data-prep {config.num_samples} {source['name']} seed {config.seed}"


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    started = time.monotonic()
    with ProgressBar(f"data-prep: {what}", total, "example") as bar:
        yield bar.update
    logger.info("%s took %.1f s", what, time.monotonic() - started)


def record_data(recorder: MlflowRecorder, out: Path, summary: Mapping[str, Any]) -> None:
    """Record counts, the summary, the figures, a table of images, and the files with digests."""
    counts = {
        "num_samples": summary["num_samples"],
        **{
            f"{prefix}/{key}": count
            for name, prefix in COUNTED.items()
            for key, count in summary[name].items()
        },
        **{
            f"{name}/{key}": count
            for name in ("rejected", "corrupted")
            for key, count in summary[name].items()
        },
    }
    correlation = summary["rank_correlation"]
    if correlation and correlation["spearman"] is not None:
        counts["rank_correlation"] = correlation["spearman"]
    recorder.summary(counts)
    for name in (SUMMARY_FILE, DIFFICULTY_FIGURE, EXAMPLES_FIGURE, REJECTED_FILE):
        if (out / name).is_file():
            recorder.artifact(out / name, "data")
    record_inputs(recorder, out, summary["sha256"], context="made")
    recorder.tags({DATA_TAG: data_tag(summary["sha256"])})
    recorder.note(f"```\n{format_summary(summary)}\n```")
    recorder.table(list(_table_rows(out)), "data/examples.json")


def _table_rows(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the first examples of each difficulty as rows of a table with images."""
    for path in data_files(out):
        rows = next(ParquetFile(path).iter_batches(ROWS_SHOWN), None)
        for row in rows.to_pylist() if rows is not None else ():
            example = from_row(row)
            yield {
                "image": side_by_side(example.images),
                "difficulty": example.difficulty,
                "task": example.task,
                "sample_type": example.sample_type,
                "score": round(example.difficulty_score, 4),
                "question": example.question,
                "trajectory": "\n".join(map(describe_step, example.trajectory)),
                "answer": example.answer,
            }
