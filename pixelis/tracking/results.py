"""Results of a run other than numbers: adapters, measured models, traces, questions, tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from PIL import Image

from pixelis.recorder import ADAPTERS
from pixelis.tracking.datasets import DIGEST_LENGTH
from pixelis.tracking.measured import model_of
from pixelis.tracking.privacy import public
from pixelis.tracking.record import Record
from pixelis.tracking.recorder import MlflowRecorder
from pixelis.tracking.traces import trace_fields

Model = Mapping[str, Any]


def log_adapter(
    recorder: MlflowRecorder,
    folder: Path,
    name: str,
    step: int,
    metrics: Mapping[str, float],
    *,
    register_as: str | None = None,
) -> None:
    """Keep an adapter as files of the run, `adapters/<name>`, and as a LoggedModel.

    Logging it again under the same name and step, after a resume, makes no second model.

    Args:
        recorder: The run's recorder.
        folder: The adapter in PEFT's layout.
        name: `final`, `best`, ...
        step: The optimiser step that it was saved after.
        metrics: Its measurements at that step, under their names on the run.
        register_as: Name of a registered model; the adapter becomes its version `candidate`.
    """
    recorder.artifact(folder, f"{ADAPTERS}/{name}")
    recorder.metrics(metrics, step)
    recorder.model(folder, name, step, list(metrics), register_as=register_as)


def final_model(name: str) -> Model:
    """Return a reference to the run's own adapter, for `link_measured` and `log_trace`."""
    return {"tags": {"pixelis.adapter": name}}


def measured_model(recorder: MlflowRecorder, address: str) -> Model | None:
    """Return a reference to the LoggedModel at an adapter's address; None if there is none."""
    try:
        model_id = model_of(recorder.client, address)
    except MlflowException as error:
        reason = str(error).strip().split("\n", 1)[0]
        recorder.warn("model", f"the model of {address} cannot be looked up ({reason})")
        return None
    return {"model_id": model_id} if model_id else None


def link_measured(
    recorder: MlflowRecorder,
    model: Model,
    metrics: Sequence[str],
    step: int,
    *,
    name: str,
    digest: str,
) -> None:
    """Show numbers of this run on the page of the model that they measure.

    Args:
        recorder: Recorder of the run with the numbers.
        model: Result of `final_model` or `measured_model`.
        metrics: Keys of the numbers.
        step: Step of the numbers.
        name: Name of the dataset.
        digest: Digest of the dataset, the same as for `MlflowRecorder.dataset`.
    """
    dataset = {"name": name, "digest": digest[:DIGEST_LENGTH]}
    value = {"model": dict(model), "metrics": list(metrics), "step": step, "dataset": dataset}
    recorder.record(Record("measured", name, value))


def log_questions(
    recorder: MlflowRecorder, file: Path, *, name: str, digest: str, num_rows: int, context: str
) -> None:
    """Record a file of questions, of any layout, as an input of the run.

    Args:
        recorder: Recorder of the run.
        file: The file or folder.
        name: Name of the dataset.
        digest: SHA-256 of the questions.
        num_rows: Number of the questions.
        context: What they are used for.
    """
    fields = {
        "digest": digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": str(file)}),
        "profile": json.dumps({"num_rows": num_rows}),
        "context": context,
    }
    recorder.record(Record("dataset", name, public(fields)))


def log_trace(recorder: MlflowRecorder, **fields: Any) -> None:
    """Keep a rollout as a trace of the run; see `traces.trace_fields`."""
    value = trace_fields(**fields)
    recorder.record(Record("trace", value["key"], value))


def log_image_table(recorder: MlflowRecorder, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Keep rows as an MLflow table under `name` (.json); a PIL image is shown in its cell.

    A failure is only a warning, because the same rows are in the data.
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
