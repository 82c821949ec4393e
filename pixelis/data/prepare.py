"""data-prep: configuration -> examples -> splits -> difficulty -> three parquet files.

The folder is written beside its place and moved there whole: whoever looks sees the complete old
files or the complete new ones.
"""

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pixelis.config import DataPrepConfig, flatten
from pixelis.curriculum.difficulty import COMPONENTS, categorise, combine, compute_components
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data.generate import generate_example
from pixelis.data.store import SUMMARY_FILE, difficulty_file, to_row, write_rows
from pixelis.data.tasks import TASK_WEIGHTS, TASKS
from pixelis.errors import ConfigError, DataError
from pixelis.operations import OPERATIONS

CHUNK = 50


def plan_samples(
    num_samples: int, seed: int, tasks: Sequence[str], ratios: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Task and sample type of every example: tasks in turn, types in exact shares, shuffled.

    Raises:
        ConfigError: when a task is unknown.
    """
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f"tasks must be among {', '.join(TASKS)}, got {task!r}")
    types = [name for name, ratio in ratios.items() for _ in range(round(ratio * num_samples))]
    types = types[:num_samples] + ["positive"] * (num_samples - len(types))
    random.Random(f"types:{seed}").shuffle(types)
    return [(tasks[index % len(tasks)], kind) for index, kind in enumerate(types)]


def split_of(digest: str, validation_fraction: float, test_fraction: float) -> str:
    """The split of an image, by its digest alone: equal images share a split."""
    position = int(hashlib.sha256(digest.encode()).hexdigest()[:12], 16) / 16**12
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def score_components(example: Example) -> dict[str, float]:
    """The difficulty components of an example, from its trajectory."""
    used = [step.operation for step in example.trajectory]
    return compute_components(
        sophistications=[OPERATIONS[name].sophistication for name in used],
        num_kinds_used=len(set(used)),
        num_kinds=len(OPERATIONS),
        num_thoughts=len(used) + 1,
        num_corrections=sum(not step.supervised for step in example.trajectory),
        sample_type=example.sample_type,
        task_weight=TASK_WEIGHTS[example.task],
    )


def _make(
    item: tuple[int, tuple[str, str]], *, seed: int, fractions: tuple[float, float]
) -> tuple[dict[str, Any], dict[str, float]]:
    index, (task, sample_type) = item
    example = generate_example(seed=seed, index=index, task=task, sample_type=sample_type)
    split = split_of(example.provenance["image_digest"], *fractions)
    return to_row(replace(example, split=split)), score_components(example)


def _map(function: Callable[[Any], Any], items: Sequence[Any], num_workers: int) -> Iterator[Any]:
    """Map in order, over processes where more than one is asked for."""
    if num_workers == 1 or len(items) <= CHUNK:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("forkserver")) as pool:
        yield from pool.map(function, items, chunksize=CHUNK)


def prepare_scenes(
    *,
    num_samples: int,
    seed: int,
    tasks: Sequence[str],
    ratios: Mapping[str, float],
    fractions: tuple[float, float],
    weights: Mapping[str, float],
    percentiles: tuple[float, float],
    split_by_category: bool,
    num_workers: int,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> list[dict[str, Any]]:
    """Make `num_samples` rows from drawn scenes; a function of its arguments without num_workers.

    Args:
        num_samples: exactly so many rows come back.
        seed: of every random choice.
        tasks: in equal shares.
        ratios: sample type -> share; the rest is positive.
        fractions: shares of the validation and the test split.
        weights: of the difficulty components.
        percentiles: where simple ends and hard begins.
        split_by_category: rank within each task; False ranks all tasks together.
        num_workers: processes.
        progress: wraps the stream of made rows (a progress bar).
    """
    plan = list(enumerate(plan_samples(num_samples, seed, tasks, ratios)))
    make = partial(_make, seed=seed, fractions=fractions)
    made = list(progress(_map(make, plan, num_workers), num_samples))
    rows = [row for row, _ in made]
    for row, components in made:
        row["difficulty_score"] = combine(components, weights)
        row["provenance"] = json.dumps(
            {**json.loads(row["provenance"]), "difficulty_components": components}, sort_keys=True
        )
    assign_difficulty(rows, percentiles, by_task=split_by_category)
    return rows


def assign_difficulty(
    rows: Sequence[dict[str, Any]], percentiles: tuple[float, float], *, by_task: bool
) -> None:
    """Write `difficulty` into the rows: percentiles of the score's rank within task and split.

    Args:
        rows: with score, task, split, provenance and id; the latter two break ties.
        percentiles: the two cuts in percent.
        by_task: False ranks all tasks together, so that difficulty follows the task as well.
    """
    keys = [
        (row["difficulty_score"], len(json.loads(row["provenance"])["objects"]), row["id"])
        for row in rows
    ]
    groups = [(row["task"] if by_task else "", row["split"]) for row in rows]
    for row, difficulty in zip(rows, categorise(keys, groups, percentiles), strict=True):
        row["difficulty"] = difficulty


def summarise(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> dict[str, Any]:
    """Counts by split, difficulty, task and type, score ranges, and the configuration."""

    def count(*names: str) -> dict[str, int]:
        return dict(sorted(Counter("/".join(row[name] for name in names) for row in rows).items()))

    scores = {
        difficulty: [row["difficulty_score"] for row in rows if row["difficulty"] == difficulty]
        for difficulty in DIFFICULTIES
    }
    return {
        "num_samples": len(rows),
        "by_split_and_difficulty": count("split", "difficulty"),
        "by_difficulty_and_task": count("difficulty", "task"),
        "by_sample_type": count("sample_type"),
        "scores": {
            name: {"min": min(s), "mean": sum(s) / len(s), "max": max(s)}
            for name, s in scores.items()
            if s
        },
        "config": dict(config),
    }


def check_place(out: Path) -> None:
    """Refuse a place where data-prep may not write, before any work is done.

    Raises:
        DataError: when the place is taken by something that data-prep did not write, or the folder
            that it is to lie in cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        taken = out.exists()
    except OSError as error:
        raise DataError(f"output_dir {out!s:.200} cannot be written: {error}") from error
    if taken and not out.is_dir():
        raise DataError(f"output_dir {out} is a file; name a folder")
    ours = {SUMMARY_FILE, *(difficulty_file(difficulty) for difficulty in DIFFICULTIES)}
    others = sorted({path.name for path in out.iterdir()} - ours) if out.is_dir() else []
    if others:
        raise DataError(
            f"output_dir {out} holds other files; name an empty or a new folder "
            f"(found {', '.join(others[:3])})"
        )


def write_folder(
    rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], out: Path
) -> dict[str, Any]:
    """Write the three files and the summary to a folder beside `out`, then put it in its place.

    Returns:
        The summary as written: with the SHA-256 of each file.

    Raises:
        DataError: when the place is taken by something that data-prep did not write, or cannot be
            written.
    """
    check_place(out)
    place = out.resolve()  # of a link, what it points to
    staged = place.with_name(f".{place.name}.{os.getpid()}.new")
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    for stale in (staged, old):  # of a process that was killed, where numbers repeat
        shutil.rmtree(stale, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        files = {}
        for difficulty in DIFFICULTIES:
            path = staged / difficulty_file(difficulty)
            write_rows((row for row in rows if row["difficulty"] == difficulty), path)
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        written = {**summary, "sha256": files}
        text = json.dumps(written, indent=2)
        (staged / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")
        if place.is_dir():
            os.replace(place, old)
        os.replace(staged, place)
    except OSError as error:
        raise DataError(f"output_dir {out} cannot be written: {error}") from error
    finally:
        if old.is_dir() and not place.exists():
            os.replace(old, place)
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return written


def prepare_folder(
    config: DataPrepConfig,
    out: Path,
    *,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> dict[str, Any]:
    """Make the data of a configuration in `out`; returns the summary.

    Raises:
        ConfigError: when a task is unknown.
        DataError: when `out` is taken or cannot be written.
    """
    check_place(out)
    traps = config.trap_ratio / 2 if config.include_traps else 0.0
    first, second = config.difficulty.percentiles
    rows = prepare_scenes(
        num_samples=config.num_samples,
        seed=config.seed,
        tasks=config.tasks,
        ratios={
            "self_correction": config.self_correction_ratio,
            "outcome_negative": config.negative_ratio if config.include_negatives else 0.0,
            "trap_perceptual": traps,
            "trap_logical": traps,
        },
        fractions=(config.validation_fraction, config.test_fraction),
        weights={name: getattr(config.difficulty, name) for name in COMPONENTS},
        percentiles=(first, second),
        split_by_category=config.split_by_category,
        num_workers=config.num_workers,
        progress=progress,
    )
    return write_folder(rows, summarise(rows, flatten(config)), out)
