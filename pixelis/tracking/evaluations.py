"""What an evaluation tells beside its numbers: whose they are, and how single rollouts went."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from pixelis.tracking.datasets import DIGEST_LENGTH
from pixelis.tracking.delivery import Record
from pixelis.tracking.measured import model_of
from pixelis.tracking.recorder import MlflowRecorder
from pixelis.tracking.source import public
from pixelis.tracking.traces import trace_fields

Model = Mapping[str, Any]


def final_model(name: str) -> Model:
    """The run's own adapter of a name, as `link_measured` and `log_trace` take it."""
    return {"tags": {"pixelis.adapter": name}}


def measured_model(recorder: MlflowRecorder, address: str) -> Model | None:
    """The LoggedModel that an adapter's address means; None, and a line, where there is none."""
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
        recorder: of the run that holds them.
        model: of `final_model` or `measured_model`.
        metrics: their keys.
        step: theirs.
        name: of the dataset.
        digest: of the dataset, as `MlflowRecorder.dataset` was given it.
    """
    dataset = {"name": name, "digest": digest[:DIGEST_LENGTH]}
    value = {"model": dict(model), "metrics": list(metrics), "step": step, "dataset": dataset}
    recorder.tell(Record("measured", name, value))


def log_questions(
    recorder: MlflowRecorder, file: Path, *, name: str, digest: str, num_rows: int, context: str
) -> None:
    """Record a file of questions, of any layout, as an input of the run.

    Args:
        recorder: of the run.
        file: the file or folder.
        name: of the dataset.
        digest: SHA-256 of what was asked.
        num_rows: how much that is.
        context: what it is used for.
    """
    fields = {
        "digest": digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": str(file)}),
        "profile": json.dumps({"num_rows": num_rows}),
        "context": context,
    }
    recorder.tell(Record("dataset", name, public(fields)))


def log_trace(recorder: MlflowRecorder, **fields: Any) -> None:
    """Keep a rollout as a trace of the run; see `traces.trace_fields`."""
    value = trace_fields(**fields)
    recorder.tell(Record("trace", value["key"], value))
