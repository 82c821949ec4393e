"""A parquet file as an MLflow dataset input, from its footer alone: images stay on disk."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pixelis.tracking.source import without_home

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
    """The first 36 hex digits of a file's sha256 (MLflow's own digest misses changed rows)."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:DIGEST_LENGTH]


def dataset_fields(path: Path, *, context: str, digest: str | None) -> dict[str, str]:
    """What MLflow stores of a parquet file.

    Args:
        path: The file.
        context: What it is used for, such as `training`.
        digest: A digest of its content; None takes `file_digest`.

    Returns:
        The fields of `mlflow.entities.Dataset` except its name, and `context`.
    """
    footer = parquet.ParquetFile(path)
    columns = [_column(field) for field in footer.schema_arrow]
    inside = path.resolve().is_relative_to(Path.cwd())
    uri = str(path.resolve().relative_to(Path.cwd())) if inside else str(path.resolve())
    return {
        "digest": (digest or file_digest(path))[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": without_home(uri)}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": footer.metadata.num_rows}),
        "context": context,
    }


def _column(field: "pa.Field[pa.DataType]") -> dict[str, Any]:
    return {"name": field.name, "required": True, **_type(field.type)}


def _type(kind: pa.DataType) -> dict[str, Any]:
    """An arrow type in the words of MLflow's column specification."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"type": "array", "items": _type(kind.value_type)}
    if pa.types.is_struct(kind):
        properties = {f.name: {**_type(f.type), "required": True} for f in kind.fields}
        return {"type": "object", "properties": properties}
    return {"type": _SCALARS.get(str(kind), "string")}
