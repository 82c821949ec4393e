"""Parquet files as dataset inputs of MLflow, described by their footers without reading images."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import dataset

from pixelis.files import file_sha256
from pixelis.tracking.privacy import without_home

VALIDATION = "validation"
DIGEST_LENGTH = 36  # MLflow's limit

_SCALARS = {"bool": "boolean", "int64": "long", "double": "double", "binary": "binary"}


def dataset_fields(
    path: Path, *, context: str, digest: str | None, split: str | None = None
) -> dict[str, str]:
    """Return the fields of `mlflow.entities.Dataset` except its name, and `context`."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    data = dataset.dataset(files, format="parquet")
    columns = [{"name": each.name, "required": True, **_type(each.type)} for each in data.schema]
    resolved, here = path.resolve(), Path.cwd().resolve()
    inside = resolved.is_relative_to(here) and here != Path(here.anchor)
    uri = str(resolved.relative_to(here)) if inside else str(resolved)
    profile: dict[str, Any] = {"num_rows": data.count_rows()}
    if split is not None:
        profile = {"split": split, "num_rows": data.count_rows(dataset.field("split") == split)}
    return {
        "digest": (digest or file_sha256(path))[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": without_home(uri)}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps(profile),
        "context": context,
    }


def _type(kind: pa.DataType) -> dict[str, Any]:
    """Convert an arrow type to MLflow's column specification."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"type": "array", "items": _type(kind.value_type)}
    if pa.types.is_struct(kind):
        properties = {f.name: {**_type(f.type), "required": True} for f in kind.fields}
        return {"type": "object", "properties": properties}
    return {"type": _SCALARS.get(str(kind), "string")}
