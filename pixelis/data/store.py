"""Examples on disk: three parquet files with embedded images, and back."""

import io
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
from pixelis.errors import DataError

SUMMARY_FILE = "summary.json"
# One row group a few thousand examples: readers stay within a few tens of megabytes.
ROWS_IN_GROUP = 2000

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


def difficulty_file(difficulty: str) -> str:
    """File name of one difficulty."""
    return f"cota_{difficulty}.parquet"


def _png(image: Image.Image | None) -> dict[str, Any] | None:
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def to_row(example: Example) -> dict[str, Any]:
    """An example as one row of the parquet files; arguments and results are JSON text."""
    row = {name: getattr(example, name) for name in FEATURES}
    row["images"] = [_png(image) for image in example.images]
    row["trajectory"] = [
        {
            "thought": step.thought,
            "operation": step.operation,
            "arguments": json.dumps(dict(step.arguments)),
            "result": json.dumps(dict(step.result)),
            "image": _png(step.image),
            "supervised": step.supervised,
        }
        for step in example.trajectory
    ]
    row["provenance"] = json.dumps(dict(example.provenance), sort_keys=True)
    return row


def _open_image(stored: Mapping[str, Any], example_id: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(stored["bytes"]))
        image.load()
    except (OSError, TypeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"example {example_id}: an image does not open ({error})") from error
    return image.convert("RGB")


def _load_object(text: Any, what: str, example_id: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"example {example_id}: {what} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"example {example_id}: {what} must be a JSON object, got {text:.40}")
    return value


def from_row(row: Mapping[str, Any]) -> Example:
    """The example of a row.

    Raises:
        DataError: when an image does not open, a text is missing or JSON text is broken, naming the
            example.
    """
    example_id = str(row["id"])
    steps = tuple(
        Step(
            step["thought"],
            step["operation"],
            _load_object(step["arguments"], "a step's arguments", example_id),
            _load_object(step["result"], "a step's result", example_id),
            _open_image(step["image"], example_id) if step["image"] else None,
            step["supervised"],
        )
        for step in row["trajectory"] or ()
    )
    plain = ("task", "sample_type", "question", "conclusion", "answer", "ground_truth")
    for name in plain:
        if not isinstance(row[name], str):
            raise DataError(f"example {example_id}: {name} must be a text, got {row[name]!r}")
    return Example(
        id=example_id,
        images=tuple(_open_image(image, example_id) for image in row["images"] or ()),
        trajectory=steps,
        provenance=_load_object(row["provenance"], "the provenance", example_id),
        difficulty_score=row["difficulty_score"],
        difficulty=row["difficulty"],
        split=row["split"],
        **{name: row[name] for name in plain},
    )


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows to one parquet file in row groups, images embedded."""
    remaining = iter(rows)
    with pq.ParquetWriter(path, FEATURES.arrow_schema) as writer:
        # Never a group without rows: `load_dataset` takes a group's size as its batch size.
        while group := list(islice(remaining, ROWS_IN_GROUP)):
            columns = {name: [row[name] for row in group] for name in FEATURES}
            writer.write_table(datasets.Dataset.from_dict(columns, FEATURES).data.table)


def data_files(folder: Path) -> list[Path]:
    """The three parquet files of a data folder.

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


def _read_split(path: Path, split: str) -> Any:
    try:
        found = pq.read_schema(path).names
        lacking = [name for name in FEATURES if name not in found]
        if not lacking:
            filters = [("split", "=", split)]
            table = pq.read_table(path, columns=list(FEATURES), filters=filters)
            return table.cast(FEATURES.arrow_schema)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error
    raise DataError(f"{path} lacks the columns {', '.join(lacking)}")


def load_split(folder: Path, split: str) -> dict[str, datasets.Dataset]:
    """The rows of one split by difficulty; images stay encoded until a row is read.

    Raises:
        DataError: when files are missing, unreadable or lack columns, or the split is unknown.
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    # Without the features' metadata, images come back as their stored bytes.
    return {
        difficulty: datasets.Dataset(_read_split(path, split).replace_schema_metadata(None))
        for difficulty, path in zip(DIFFICULTIES, data_files(folder), strict=True)
    }
