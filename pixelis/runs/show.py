"""Show examples of a data folder in the console and on a page."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from pixelis.config import suggest
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data.store import data_files, from_row, read_rows
from pixelis.errors import DataError
from pixelis.evaluation.cards import MAX_QUESTION, cut, example_acts, example_facts, examples_page
from pixelis.files import write_atomic


@dataclass(frozen=True)
class ShowSettings:
    """Which examples of a folder are shown, and where the page is written."""

    folder: Path
    difficulty: str | None  # None: all
    task: str | None
    split: str | None
    num: int
    page: Path


def run_show(settings: ShowSettings) -> None:
    """Write a page of examples with their images, and print their texts.

    Raises:
        DataError: when the folder cannot be read, or has no such example.
    """
    examples, total = choose_examples(settings)
    title = f"{len(examples)} of {total} examples in {settings.folder}"
    chosen = (settings.difficulty, settings.task, settings.split)
    about = ", ".join(filter(None, chosen)) or "every difficulty, task and split"
    settings.page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(settings.page, examples_page(examples, title=title, about=about))
    print(title)
    for example in examples:
        sizes = ", ".join(f"{image.width} x {image.height}" for image in example.images)
        print(f"\n{example_facts(example)} · {sizes} pixels\n{cut(example.question, MAX_QUESTION)}")
        for act in example_acts(example):
            print(act.as_text())
    print(f"\npage: {settings.page}")


def choose_examples(settings: ShowSettings) -> tuple[list[Example], int]:
    """Return the examples, difficulties and tasks in turn, and how many there are to choose from.

    Raises:
        DataError: when the folder cannot be read, or has no such example.
    """
    files = dict(zip(DIFFICULTIES, data_files(settings.folder), strict=True))
    names = [settings.difficulty] if settings.difficulty else DIFFICULTIES
    groups: list[dict[str, list[tuple[Any, int]]]] = []  # one per difficulty: task -> its rows
    for name in names:
        rows = read_rows(files[name], settings.split)
        tasks: dict[str, list[tuple[Any, int]]] = {}
        for index, task in enumerate(rows["task"].to_pylist()):
            tasks.setdefault(task, []).append((rows, index))
        groups.append(tasks)
    known = sorted({task for tasks in groups for task in tasks})
    if not known:
        wanted = f"{settings.difficulty or ''} examples".strip()
        where = f" in the {settings.split} split" if settings.split else ""
        raise DataError(f"{settings.folder} has no {wanted}{where}")
    if settings.task is not None:
        if settings.task not in known:
            hint = suggest(settings.task, known)
            raise DataError(f"task must be one of {', '.join(known)}, got {settings.task!r}{hint}")
        groups = [{settings.task: tasks.get(settings.task, [])} for tasks in groups]
    ranked = list(_in_turn(_in_turn(tasks.values()) for tasks in groups))
    rows_of_examples = (rows.slice(index, 1).to_pylist()[0] for rows, index in ranked)
    return [from_row(row) for row in islice(rows_of_examples, settings.num)], len(ranked)


def _in_turn(groups: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Yield the first item of each group, then the second of each, and so on."""
    return (item for item in chain.from_iterable(zip_longest(*groups)) if item is not None)
