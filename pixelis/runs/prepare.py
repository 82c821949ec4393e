"""Data on the way to a run: made under a lock where it is missing, shown, recorded as inputs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from pyarrow.parquet import ParquetFile
from tqdm import tqdm

from pixelis.config import DataPrepConfig, flatten
from pixelis.data.store import SUMMARY_FILE, data_files, from_row
from pixelis.data_prep.figures import side_by_side
from pixelis.data_prep.generate import describe_step
from pixelis.data_prep.output_folder import (
    DIFFICULTY_FIGURE,
    EXAMPLES_FIGURE,
    REJECTED_FILE,
    check_output_folder,
)
from pixelis.data_prep.prepare import Stream, open_stream, prepare_folder
from pixelis.data_prep.summary import format_summary
from pixelis.evaluation.answer_loss import build_answer_losses
from pixelis.models.lengths import TokenCounter
from pixelis.runs.inputs import record_inputs
from pixelis.runs.missing_data import unrecorded_mark
from pixelis.tracking import (
    DATA_TAG,
    MlflowRecorder,
    data_tag,
    find_data_run,
    log_image_table,
    open_run,
    without_environment,
)

# What the summary counts that is worth a column in MLflow's tables.
COUNTED = {
    "by_split_and_difficulty": "examples",
    "by_task": "task",
    "by_sample_type": "sample_type",
}
ROWS_SHOWN = 8


def make_data(config: DataPrepConfig, out: Path, *, missing_from: str | None = None) -> Any:
    """Make or import the data of a configuration in `out`, in a run; returns the summary.

    Two processes that need the same folder at once make it once: the second waits for the first.
    Where a process was killed between the folder and what its run tells of it, the next start that
    needs the folder tells it.

    Args:
        config: what to make.
        out: where.
        missing_from: the file of `config`, on the way to another run, which keeps what `mlflow run`
            opened: nothing is done where the folder is there and recorded, and the run is in the
            experiment `data_prep`. None: made anew.
    """
    check_output_folder(out)
    on_the_way, mark = missing_from is not None, unrecorded_mark(out)
    with FileLock(out.with_name(f".{out.name}.lock")):
        if on_the_way and out.exists():
            if mark.exists():
                _record_left(config, out)
                mark.unlink()
            return None
        if on_the_way:
            print(f"{out} does not exist: making it from {missing_from}", flush=True)
        rules, count_tokens = config.difficulty, None
        if config.max_length is not None:
            count_tokens = TokenCounter(rules.model_name)
        stream = open_stream(config, count_tokens)
        if stream.report:
            print(stream.report, flush=True)
        answer_losses = None
        if rules.correlation_samples or rules.scorer == "model":
            from pixelis.models.load import resolve_model  # imports torch

            resolve_model(rules.model_name)
            answer_losses = build_answer_losses(rules.model_name)
        with _open_run(config, _run_name(config, stream), aside=on_the_way) as recorder:
            mark.touch()
            try:
                summary = prepare_folder(
                    config,
                    out,
                    progress=_progress,
                    answer_losses=answer_losses,
                    count_tokens=count_tokens,
                    stream=stream,
                )
            except BaseException:
                mark.unlink(missing_ok=True)  # there is no new folder to tell of
                raise
            title = f"{summary['num_samples']} examples in {out}"
            print(format_summary(summary, title=title), flush=True)
            if summary["rejected"]:
                print(f"file, line and reason of each: {out / REJECTED_FILE}", flush=True)
            record_data(recorder, out, summary)
            print(recorder.url_hint(), flush=True)
        mark.unlink(missing_ok=True)
    return summary


@contextmanager
def _open_run(config: DataPrepConfig, name: str, *, aside: bool) -> Iterator[MlflowRecorder]:
    with (
        without_environment() if aside else nullcontext(),
        open_run(
            entry_point="data-prep",
            experiment="data_prep",
            run_name=name,
            params=flatten(config),
            tags={"pixelis.seed": str(config.seed)},
        ) as recorder,
    ):
        yield recorder


def _record_left(config: DataPrepConfig, out: Path) -> None:
    """Tell of a folder whose own run was killed before it could, unless it did at the very end."""
    from pixelis.training.inputs import data_digest  # imports torch

    if find_data_run(data_digest(out)) is not None:
        return
    summary = json.loads((out / SUMMARY_FILE).read_text(encoding="utf-8"))
    print(f"{out} was made by a run that was killed before it told of it: recorded now", flush=True)
    with _open_run(config, f"data-prep {out.name}, recorded later", aside=True) as recorder:
        record_data(recorder, out, summary)


def _run_name(config: DataPrepConfig, stream: Stream) -> str:
    source = stream.describe()
    if source["name"] == "input":
        return f"data-prep {source['format']} of {Path(str(config.input)).name}"
    return f"data-prep {config.num_samples} {source['name']} seed {config.seed}"


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    started = time.monotonic()
    with tqdm(total=total, unit="example", desc=f"data-prep: {what}", mininterval=1) as bar:
        yield bar.update
    print(f"{what} took {time.monotonic() - started:.1f} s", flush=True)


def record_data(recorder: MlflowRecorder, out: Path, summary: Mapping[str, Any]) -> None:
    """Record counts, the summary, the figures, a table of images, and the files with digests."""
    counts = {
        "num_samples": summary["num_samples"],
        **{
            f"{prefix}/{key}": count
            for name, prefix in COUNTED.items()
            for key, count in summary[name].items()
        },
        **{f"rejected/{reason}": count for reason, count in summary["rejected"].items()},
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
    log_image_table(recorder, list(_shown(out)), "data/examples.json")


def _shown(out: Path) -> Iterator[dict[str, Any]]:
    """Some examples of each difficulty as rows of a table: their images, and what is said."""
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
