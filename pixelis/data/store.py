"""Examples on disk: three parquet files, one per difficulty, with embedded images."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pixelis.data.example import DIFFICULTIES, SPLITS, Example, Step
from pixelis.data.images import encode_image, open_header
from pixelis.errors import DataError

SUMMARY_FILE = "summary.json"
# Limits of a row group, so that readers need only some tens of megabytes.
ROWS_IN_GROUP = 2000
BYTES_IN_GROUP = 32 * 2**20
ROWS_IN_BATCH = 50

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "task": datasets.Value("string"),
        "sample_type": datasets.Value("string"),
        "question": datasets.Value("string"),
        "images": [datasets.Image()],
        "trajectory": [
            {
                "thought": datasets.Value("string"),
                "operation": datasets.Value("string"),
                "arguments": datasets.Value("string"),
                "result": datasets.Value("string"),
                "image": datasets.Image(),
                "supervised": datasets.Value("bool"),
            }
        ],
        "conclusion": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "ground_truth": datasets.Value("string"),
        "provenance": datasets.Value("string"),
        "difficulty_score": datasets.Value("float64"),
        "difficulty": datasets.Value("string"),
        "split": datasets.Value("string"),
    }
)
SCHEMA = FEATURES.arrow_schema
_TEXTS = ("task", "sample_type", "question", "conclusion", "answer", "ground_truth")


def difficulty_file(difficulty: str) -> str:
    """Return the file name of one difficulty."""
    return f"cota_{difficulty}.parquet"


def _stored(image: Image.Image | None) -> dict[str, Any] | None:
    return None if image is None else {"bytes": encode_image(image), "path": None}


def to_row(example: Example) -> dict[str, Any]:
    """Convert an example to a row of the parquet files; arguments and results become JSON text."""
    row = {name: getattr(example, name) for name in FEATURES}
    row["images"] = [_stored(image) for image in example.images]
    row["trajectory"] = [
        {
            "thought": step.thought,
            "operation": step.operation,
            "arguments": json.dumps(dict(step.arguments)),
            "result": json.dumps(dict(step.result)),
            "image": _stored(step.image),
            "supervised": step.supervised,
        }
        for step in example.trajectory
    ]
    row["provenance"] = json.dumps(dict(example.provenance), sort_keys=True)
    return row


def from_row(row: Mapping[str, Any]) -> Example:
    """Convert a row to its example.

    Raises:
        DataError: when an image does not open, a text is missing or JSON text is broken; the
            message names the example.
    """
    example_id = str(row["id"])
    try:
        return Example(
            id=example_id,
            images=tuple(_open_image(image) for image in row["images"] or ()),
            trajectory=tuple(_load_step(step) for step in row["trajectory"] or ()),
            provenance=_load_object(row, "provenance"),
            **{name: row[name] for name in ("difficulty_score", "difficulty", "split")},
            **{name: _check(row, name, str) for name in _TEXTS},
        )
    except DataError as error:
        raise DataError(f"example {example_id}: {error}") from error


def _check(values: Any, name: str, kind: type) -> Any:
    value = values[name] if isinstance(values, Mapping) else None
    if not isinstance(value, kind):
        rule = "a text" if kind is str else "true or false"
        raise DataError(f"{name} must be {rule}, got {value!r}")
    return value


def _load_object(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    text = _check(values, name, str)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{name} must be a JSON object, got {text:.40}")
    return value


def _load_step(step: Any) -> Step:
    return Step(
        _check(step, "thought", str),
        _check(step, "operation", str),
        _load_object(step, "arguments"),
        _load_object(step, "result"),
        _open_image(step["image"]) if step["image"] else None,
        _check(step, "supervised", bool),
    )


def _open_image(stored: Mapping[str, Any]) -> Image.Image:
    try:
        image = open_header(stored["bytes"])
        image.load()
    # Pillow's readers raise many types on broken bytes.
    except Exception as error:
        raise DataError(f"an image does not open ({error})") from error
    return image.convert("RGB")


class GroupedWriter:
    """Writes a parquet file whose row groups are bounded in rows and bytes."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._writer = pq.ParquetWriter(path, SCHEMA)
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def __enter__(self) -> "GroupedWriter":
        """Return the writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write the pending rows and the footer."""
        self._flush()
        self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        # A group without rows breaks `load_dataset`, whose batch size is that of a group.
        if not batch.num_rows:
            return
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= ROWS_IN_GROUP or self._bytes >= BYTES_IN_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending, SCHEMA))
        self._pending = []
        self._rows = self._bytes = 0


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows to one parquet file."""
    remaining = iter(rows)
    with GroupedWriter(path) as writer:
        while batch := list(islice(remaining, ROWS_IN_BATCH)):
            writer.write(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))


def data_files(folder: Path) -> list[Path]:
    """Return the three parquet files of a data folder.

    Raises:
        DataError: when the folder or one of the files is missing, naming which.
    """
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist; make it with data-prep")
    files = [folder / difficulty_file(difficulty) for difficulty in DIFFICULTIES]
    missing = [path.name for path in (*files, folder / SUMMARY_FILE) if not path.is_file()]
    if missing:
        raise DataError(
            f"data folder {folder} is incomplete: it lacks {', '.join(missing)}; "
            "run data-prep again, or name another folder by data.path"
        )
    return files


def read_rows(path: Path, split: str | None = None) -> Any:
    """Return the rows of one parquet file as a table: those of a split, or all.

    Raises:
        DataError: when it cannot be read, or lacks columns.
    """
    try:
        names = pq.read_schema(path).names
        lacking = [name for name in FEATURES if name not in names]
        if lacking:
            raise DataError(f"{path} lacks the columns {', '.join(lacking)}")
        filters = None if split is None else [("split", "=", split)]
        rows = pq.read_table(path, columns=list(FEATURES), filters=filters)
        # Without the features' metadata, images come back as their stored bytes.
        return rows.cast(SCHEMA).replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error


def load_split(folder: Path, split: str) -> dict[str, datasets.Dataset]:
    """Return the rows of one split by difficulty; images stay encoded until a row is converted.

    A difficulty that no split has a row of is left out: data may be of one difficulty.

    Raises:
        DataError: when files are missing, unreadable or lack columns, or the split is unknown.
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    files = dict(zip(DIFFICULTIES, data_files(folder), strict=True))
    rows = {difficulty: read_rows(path, split) for difficulty, path in files.items()}
    present = [name for name, path in files.items() if pq.read_metadata(path).num_rows]
    return {name: datasets.Dataset(rows[name]) for name in present or files}
