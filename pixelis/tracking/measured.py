"""The models that a run measures: which they are, and the run's numbers on their pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from pixelis.tracking.adapters import model_of
from pixelis.tracking.datasets import DIGEST_LENGTH
from pixelis.tracking.journal import Record
from pixelis.tracking.privacy import first_line
from pixelis.tracking.recorder import MlflowRecorder

Model = Mapping[str, Any]


def final_model(name: str) -> Model:
    """Return a reference to the run's own adapter, for `link_measured` and `log_trace`."""
    return {"tags": {"pixelis.adapter": name}}


def measured_model(recorder: MlflowRecorder, address: str) -> Model | None:
    """Return a reference to the LoggedModel at an adapter's address; None if there is none."""
    try:
        model_id = model_of(recorder.client, address)
    except MlflowException as error:
        recorder.warn("model", f"the model of {address} cannot be found ({first_line(error)})")
        return None
    return {"model_id": model_id} if model_id else None


def curriculum_of(recorder: MlflowRecorder, model: Model) -> str:
    """Return the curriculum of the training that made a model; empty if it is not known.

    `model` is of `measured_model`.
    """

    def read() -> str:
        made = recorder.client.get_logged_model(model["model_id"])
        params = recorder.client.get_run(str(made.source_run_id)).data.params
        if params.get("curriculum.enabled", "").lower() == "false":
            return "fixed mix"
        return str(params.get("curriculum.strategy", ""))

    return recorder.attempt("reading the adapter's curriculum", read) or ""


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

    The model is the result of `final_model` or `measured_model`; `metrics` are the keys of the
    numbers at a step; `name` and `digest` are those of `MlflowRecorder.dataset`.
    """
    dataset = {"name": name, "digest": digest[:DIGEST_LENGTH]}
    value = {"model": dict(model), "metrics": list(metrics), "step": step, "dataset": dataset}
    recorder.record(Record("measured", name, value))
