"""A table with images in it, as MLflow's table view shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
from PIL import Image

from pixelis.tracking.recorder import MlflowRecorder
from pixelis.tracking.source import public


def log_image_table(recorder: MlflowRecorder, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Keep rows as an MLflow table under `name` (.json); a PIL image is shown in its cell.

    Where MLflow does not take it, a warning says so: the same rows are in the data.
    """
    if not rows:
        return
    columns = {key: [_shown(row[key]) for row in rows] for key in rows[0]}
    recorder.attempt(
        f"logging the table {name}",
        lambda: recorder.client.log_table(recorder.run_id, columns, name),
    )


def _shown(value: Any) -> Any:
    return mlflow.Image(value) if isinstance(value, Image.Image) else public(value)
