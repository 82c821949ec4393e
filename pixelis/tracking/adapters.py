"""Adapters as LoggedModels of MLflow: files, metrics, model card and server."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run

from pixelis.tracking.model_files import build_card, write_servable
from pixelis.tracking.registry import register
from pixelis.tracking.visits import find_visit

CARD_FILE = "README.md"


@dataclass(frozen=True)
class Origin:
    """The base, data and settings of an adapter, for its card and for serving it.

    Attributes:
        base_model: the base's name.
        min_pixels, max_pixels: bounds of an image's area in training.
        trust_remote_code: whether the base's own code was allowed to run.
        data: the digest and the origin of the data, in a line.
        curriculum: the resolved section of the configuration, as YAML.
        seed: seed of the training.
    """

    base_model: str
    min_pixels: int
    max_pixels: int
    trust_remote_code: bool
    data: str
    curriculum: str
    seed: int


def send_model(client: MlflowClient, run_id: str, fields: Mapping[str, Any]) -> None:
    """Log an adapter as a LoggedModel of a run; sending it again makes no second model.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        fields: `folder` and `name` of the adapter; `step` after which it was saved; `metrics`, keys
            on the run whose values at that step are the adapter's; `origin` (of `Origin`) or None;
            `events`, the curriculum's events up to that step; `measured_on`, `name` and `digest` of
            the validation dataset; `visit`, the index of the stage visit that ended with this
            adapter, whose run lists the model too; `results` of a test, for the card;
            `register_as`, a registered model's name, or None.

    Raises:
        FileNotFoundError: The folder has been removed before the model was complete.
    """
    run = client.get_run(run_id)
    model = find_model(client, run, _tags(fields))
    is_whole = model is not None and model.status == LoggedModelStatus.READY
    if not is_whole and not Path(fields["folder"]).is_dir():
        raise FileNotFoundError(f"{fields['folder']} is not there any more")
    model = model or _create(client, run, fields)
    model_id = str(model.model_id)
    points = _points(client, run_id, fields)
    if not is_whole:
        client.log_model_artifacts(model_id, fields["folder"])
    _log_card_and_server(client, model_id, fields, points)
    if not is_whole:
        client.finalize_logged_model(model_id, "READY")
    visit = fields["visit"] and find_visit(client, run, fields["visit"])
    for owner_id in (run_id, *([visit.info.run_id] if visit else [])):
        outputs = client.get_run(owner_id).outputs
        known = outputs.model_outputs if outputs else []
        if model_id not in {output.model_id for output in known}:
            client.log_outputs(owner_id, [LoggedModelOutput(model_id, step=fields["step"])])
    measured = {metric.key for metric in model.metrics or ()}
    on = fields["measured_on"]
    fresh = [linked_point(p, model_id, on) for p in points if p.key not in measured]
    if fresh:
        client.log_batch(run_id, metrics=fresh)
    if fields["register_as"]:
        register(client, fields["register_as"], model_id, run_id)


def _tags(fields: Mapping[str, Any]) -> dict[str, str]:
    return {"pixelis.adapter": fields["name"], "pixelis.step": str(fields["step"])}


def find_model(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> LoggedModel | None:
    """Return the newest model of a run with these tags, complete or not."""
    token = None
    while True:
        models = client.search_logged_models(
            [run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
            page_token=token,
        )
        if model := next((m for m in models if tags.items() <= m.tags.items()), None):
            return model
        token = models.token
        if not token:
            return None


def _create(client: MlflowClient, run: Run, fields: Mapping[str, Any]) -> LoggedModel:
    origin = fields["origin"] or {}
    kept = ("base_model", "seed")
    return client.create_logged_model(
        run.info.experiment_id,
        name="adapter-" + re.sub(r"[^\w -]", "-", fields["name"]),
        source_run_id=run.info.run_id,
        tags=_tags(fields),
        params={"step": str(fields["step"]), **{k: str(origin[k]) for k in kept if k in origin}},
        model_type="lora-adapter",
    )


def _points(client: MlflowClient, run_id: str, fields: Mapping[str, Any]) -> list[Metric]:
    """Return the adapter's points on the run: of each metric, the first point at its step.

    After a rollback of weights, a second point at the same step belongs to the older weights.
    """
    points: list[Metric] = []
    for key in fields["metrics"]:
        history = client.get_metric_history(run_id, key)
        points += [metric for metric in history if metric.step == fields["step"]][:1]
    return points


def linked_point(point: Metric, model_id: str, measured_on: Mapping[str, str]) -> Metric:
    """Return a point of the run with the model's id; MLflow then adds it only to the model."""
    return Metric(
        point.key,
        point.value,
        point.timestamp,
        point.step,
        model_id=model_id,
        dataset_name=measured_on.get("name"),
        dataset_digest=measured_on.get("digest"),
    )


def _log_card_and_server(
    client: MlflowClient, model_id: str, fields: Mapping[str, Any], points: Sequence[Metric]
) -> None:
    """Add the model card and the files that `mlflow models` needs to PEFT's two files."""
    origin = fields["origin"]
    if origin is None:
        return
    with tempfile.TemporaryDirectory(prefix="pixelis-") as name:
        folder = Path(name) / "model"
        write_servable(folder, model_id, origin)
        card = build_card(fields, {point.key: point.value for point in points})
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        client.log_model_artifacts(model_id, str(folder))
