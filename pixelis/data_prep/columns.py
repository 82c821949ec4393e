"""Storage of examples until every score is known: columns in memory, rows on disk."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from pixelis.data.example import SAMPLE_TYPES, SPLITS
from pixelis.data.store import SCHEMA
from pixelis.data_prep.rows import RowInfo

ROWS_FILE = ".rows.arrow"


class Columns:
    """The facts of every example that stay in memory: about a hundred bytes each."""

    def __init__(self) -> None:
        """Start without examples."""
        self.keys = array("Q")
        self.scores = array("d")
        self.num_objects = array("L")
        self.num_bytes = 0  # of their rows
        self.components: dict[str, array[float]] = {}
        # Names are stored as codes: in an import, every example may have a task of its own.
        self._codes = {name: array("L") for name in ("task", "sample_type", "split")}
        self._names: dict[str, dict[str, int]] = {
            "task": {},
            "sample_type": {name: code for code, name in enumerate(SAMPLE_TYPES)},
            "split": {name: code for code, name in enumerate(SPLITS)},
        }

    def __len__(self) -> int:
        """Return how many examples there are."""
        return len(self.keys)

    def add(self, info: RowInfo) -> None:
        """Add the facts of one example."""
        for name, part in info.components.items():
            self.components.setdefault(name, array("d")).append(part)
        self.keys.append(info.key)
        self.scores.append(info.score)
        self.num_objects.append(info.num_objects)
        for name, codes in self._codes.items():
            names = self._names[name]
            codes.append(names.setdefault(getattr(info, name), len(names)))

    def estimate_bytes(self, total: int | None) -> float | None:
        """Estimate the bytes on disk of `total` examples from those so far; None without any."""
        return 2 * self.num_bytes * max(1.0, total / len(self)) if total and len(self) else None

    def column(self, name: str) -> list[str]:
        """Return `task`, `sample_type` or `split` of every example."""
        names = list(self._names[name])
        return [names[code] for code in self._codes[name]]

    def rows(self, difficulties: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield each example as the summary and the figures read it."""
        columns = [self.column(name) for name in self._codes]
        for index, (task, sample_type, split) in enumerate(zip(*columns, strict=True)):
            yield {
                "task": task,
                "sample_type": sample_type,
                "split": split,
                "difficulty": difficulties[index],
                "score": self.scores[index],
                "components": {name: parts[index] for name, parts in self.components.items()},
            }


class RowsFile:
    """A file of record batches, written once and then read in the same order."""

    def __init__(self, folder: Path) -> None:
        """Open the file for writing."""
        self.path = folder / ROWS_FILE
        self._open = ExitStack()
        file = self._open.enter_context(pa.OSFile(str(self.path), "wb"))
        self._writer = self._open.enter_context(pa.ipc.new_stream(file, SCHEMA))

    def __enter__(self) -> "RowsFile":
        """Return the file, to be written in a `with` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End writing."""
        self._open.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch."""
        if batch.num_rows:
            self._writer.write_batch(batch)

    def read(self) -> Iterator[pa.RecordBatch]:
        """Read every batch, in order."""
        with pa.OSFile(str(self.path), "rb") as file:
            yield from pa.ipc.open_stream(file)
