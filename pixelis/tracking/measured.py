"""Links between the numbers of a run and the LoggedModel that they measure."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelInput, Metric, Run
from mlflow.exceptions import MlflowException

from pixelis.tracking.adapters import find_model, linked_point
from pixelis.tracking.lookup import FINAL_ADAPTER
from pixelis.tracking.registry import find_version

ADAPTERS = FINAL_ADAPTER.partition("/")[0]


def model_of(client: MlflowClient, uri: str) -> str | None:
    """Return the id of the LoggedModel at an adapter's address.

    Args:
        client: Client of the store.
        uri: `models:/m-...`, `models:/<name>/<version>`, `models:/<name>@<alias>`, `runs:/<id>` or
            `runs:/<id>/adapters/<name>`.

    Returns:
        The id; None if the address is a folder or of another kind, or has no LoggedModel.
    """
    if uri.startswith("models:/"):
        address = uri.removeprefix("models:/").rstrip("/")
        if "/" not in address and "@" not in address:
            return address
        version = find_version(uri)
        source = str(version.source) if version else ""
        is_model = source.startswith("models:/m-")
        return source.removeprefix("models:/") if is_model else None
    if not uri.startswith("runs:/"):
        return None
    run_id, _, path = uri.removeprefix("runs:/").strip("/").partition("/")
    folder, _, name = (path or FINAL_ADAPTER).partition("/")
    if folder != ADAPTERS:
        return None
    try:
        model = find_model(client, client.get_run(run_id), {"pixelis.adapter": name})
    except MlflowException:  # a store that keeps adapters but no LoggedModels
        return None
    return str(model.model_id) if model else None


def find_measured(
    client: MlflowClient, run: Run, model: Mapping[str, Any] | None
) -> LoggedModel | None:
    """Return the model with this `model_id`, or the run's own model with these `tags`."""
    if model is None:
        return None
    if "model_id" in model:
        return client.get_logged_model(model["model_id"])
    return find_model(client, run, model["tags"])


def send_measured(client: MlflowClient, run_id: str, fields: Mapping[str, Any]) -> None:
    """Add a run's numbers to the model that they measure; sending them again changes nothing.

    Args:
        client: Client of the store.
        run_id: The run that holds the numbers.
        fields: `model` (of `find_measured`), `metrics` (keys on the run), `step`, and `dataset`
            (`name` and `digest`).
    """
    run = client.get_run(run_id)
    model = find_measured(client, run, fields["model"])
    if model is None:
        return
    model_id = str(model.model_id)
    if model.source_run_id != run_id:  # a run's own models are its outputs
        inputs = run.inputs.model_inputs if run.inputs else []
        if model_id not in {each.model_id for each in inputs or ()}:
            client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    has = {
        (metric.key, metric.run_id or metric.model_id, metric.dataset_digest)
        for metric in model.metrics or ()
    }
    digest = fields["dataset"].get("digest")
    fresh: list[Metric] = []
    for key in fields["metrics"]:
        if (key, run_id, digest) not in has:
            history = client.get_metric_history(run_id, key)
            points: Sequence[Metric] = [p for p in history if p.step == fields["step"]]
            fresh += [linked_point(point, model_id, fields["dataset"]) for point in points[:1]]
    if fresh:
        client.log_batch(run_id, metrics=fresh)
