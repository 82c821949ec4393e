"""Parquet files as dataset inputs of MLflow, described by their footers without reading images."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pixelis.tracking.privacy import without_home

VALIDATION = "validation"
DIGEST_LENGTH = 36  # MLflow's limit

_SCALARS = {
    "bool": "boolean",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
    "float": "float",
    "double": "double",
    "binary": "binary",
    "large_binary": "binary",
}


def file_digest(path: Path) -> str:
    """Return 36 hex digits of a file's sha256; MLflow's own digest misses changed rows."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:DIGEST_LENGTH]


def dataset_fields(
    path: Path, *, context: str, digest: str | None, split: str | None = None
) -> dict[str, str]:
    """Return MLflow's description of a parquet file, or of a folder of such files of one schema.

    Args:
        path: The file or folder.
        context: What it is used for, such as `training`.
        digest: A digest of its content; by default `file_digest`, for a file.
        split: Counts only the rows with this value in the column `split`; None counts all.

    Returns:
        The fields of `mlflow.entities.Dataset` except its name, and `context`.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    footers = [parquet.ParquetFile(file) for file in files]
    columns = [_column(field) for field in footers[0].schema_arrow]
    resolved, here = path.resolve(), Path.cwd().resolve()
    inside = resolved.is_relative_to(here) and here != Path(here.anchor)
    uri = str(resolved.relative_to(here)) if inside else str(resolved)
    profile: dict[str, Any] = {"num_rows": sum(footer.metadata.num_rows for footer in footers)}
    if split is not None:
        splits = [parquet.read_table(file, columns=["split"])["split"] for file in files]
        num_rows = sum(each.to_pylist().count(split) for each in splits)
        profile = {"split": split, "num_rows": num_rows}
    return {
        "digest": (digest or file_digest(path))[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": without_home(uri)}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps(profile),
        "context": context,
    }


def _column(field: "pa.Field[pa.DataType]") -> dict[str, Any]:
    return {"name": field.name, "required": True, **_type(field.type)}


def _type(kind: pa.DataType) -> dict[str, Any]:
    """Convert an arrow type to MLflow's column specification."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"type": "array", "items": _type(kind.value_type)}
    if pa.types.is_struct(kind):
        properties = {f.name: {**_type(f.type), "required": True} for f in kind.fields}
        return {"type": "object", "properties": properties}
    return {"type": _SCALARS.get(str(kind), "string")}
