"""Data on the way to a run: made under a lock where it is missing, shown, recorded as inputs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from pixelis.config import DataPrepConfig
from pixelis.data.example import DIFFICULTIES, SPLITS
from pixelis.data.prepare import check_place, prepare_folder
from pixelis.data.store import SUMMARY_FILE, data_files
from pixelis.tracking import MlflowRecorder


def make_data(config: DataPrepConfig, out: Path, *, only_if_missing: bool = False) -> Any:
    """Make the data of a configuration in `out` and print what came of it; returns the summary.

    Two processes that need the same folder at once make it once: the second waits for the first.
    """
    check_place(out)
    with FileLock(out.with_name(f".{out.name}.lock")):
        if only_if_missing and out.exists():
            return None
        summary = prepare_folder(config, out, progress=_progress)
    print_summary(summary, out)
    return summary


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    bar: Iterable[Any] = tqdm(items, total=total, unit="example", desc="data-prep", mininterval=1)
    return bar


def print_summary(summary: Any, out: Path) -> None:
    """A table of how many examples each split and difficulty has."""
    table = Table(title=f"{summary['num_samples']} examples in {out}", title_justify="left")
    for column in ("difficulty", *SPLITS):
        table.add_column(column, justify="left" if column == "difficulty" else "right")
    counts = summary["by_split_and_difficulty"]
    for difficulty in DIFFICULTIES:
        table.add_row(difficulty, *(str(counts.get(f"{s}/{difficulty}", 0)) for s in SPLITS))
    Console(width=100).print(table)


def record_data(recorder: MlflowRecorder, out: Path, summary: Any) -> None:
    """Record counts, the summary and the three files with their digests."""
    counts = summary["by_split_and_difficulty"]
    recorder.summary({f"examples/{name}": count for name, count in counts.items()})
    recorder.artifact(out / SUMMARY_FILE, "data")
    record_inputs(recorder, out, summary["sha256"], context="made")


def record_inputs(
    recorder: MlflowRecorder, folder: Path, digests: dict[str, str], *, context: str
) -> None:
    """Record the parquet files of a data folder as inputs of the run."""
    for path in data_files(folder):
        recorder.dataset(path, name=path.stem, context=context, digest=digests[path.name])
