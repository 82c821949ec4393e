"""Adapters as LoggedModels of MLflow: files, metrics, model card, and files for `mlflow models`.

They hold no pickle, because `pixelis.evaluation.serving` loads the served model.
"""

import base64
import io
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd  # type: ignore[import-untyped]
from mlflow import MlflowClient
from mlflow.entities import (
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Run,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from PIL import Image, ImageDraw

from pixelis.recorder import ADAPTERS
from pixelis.tracking.lookup import FINAL_ADAPTER
from pixelis.tracking.registry import find_version, register
from pixelis.tracking.visits import find_visit

CARD_FILE = "README.md"
# A name, because MLflow imports the module when it loads the model; importing it here would import
# torch.
LOADER = "pixelis.evaluation.serving"

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("binary", "image"), ColSpec("string", "question")]),
    outputs=Schema(
        [
            ColSpec("string", "answer", required=False),
            ColSpec("string", "trajectory"),
            ColSpec("string", "outcome"),
        ]
    ),
    params=ParamSchema(
        [ParamSpec("max_operations", "integer", 8), ParamSpec("max_new_tokens", "integer", 96)]
    ),
)


@dataclass(frozen=True)
class Origin:
    """The base, data and settings of an adapter, for its card and for serving it."""

    base_model: str  # the base's name
    min_pixels: int  # bounds of an image's area in training
    max_pixels: int
    trust_remote_code: bool  # whether the base's own code was allowed to run
    data: str  # the digest and the origin of the data, in a line
    curriculum: str  # the resolved section of the configuration, as YAML
    seed: int  # seed of the training


def send_model(client: MlflowClient, run_id: str, folder: Path, fields: Mapping[str, Any]) -> None:
    """Log an adapter as a LoggedModel of a run; sending it again makes no second model.

    The fields are those of `MlflowRecorder.model`; `origin` (of `Origin`) or None; `events`, the
    curriculum's events up to its step; `measured_on`, `name` and `digest` of the validation
    dataset. The run of its `visit` lists the model too. Its name ends with the run's short id.
    """
    run, tags, step = client.get_run(run_id), _tags(fields), fields["step"]
    model = find_model(client, run, tags) or _create(client, run, fields)
    model_id, is_whole = str(model.model_id), model.status == LoggedModelStatus.READY
    points = _points(client, run_id, fields["metrics"], step)
    if not is_whole:
        client.log_model_artifacts(model_id, str(folder))
    _log_card_and_server(client, model_id, folder, fields, points)
    if not is_whole:
        client.finalize_logged_model(model_id, "READY")
    visit = fields["visit"] and find_visit(client, run, fields["visit"])
    for owner_id in (run_id, *([visit.info.run_id] if visit else [])):
        outputs = client.get_run(owner_id).outputs
        known = outputs.model_outputs if outputs else []
        if model_id not in {output.model_id for output in known}:
            client.log_outputs(owner_id, [LoggedModelOutput(model_id, step=step)])
    measured = {metric.key for metric in model.metrics or ()}
    fresh = [point for point in points if point.key not in measured]
    _link(client, run_id, model_id, fresh, fields["measured_on"])
    if fields["register_as"]:
        register(client, fields["register_as"], model_id, run_id)


def send_measured(client: MlflowClient, run_id: str, fields: Mapping[str, Any]) -> None:
    """Add a run's numbers to the model that they measure; sending them again changes nothing.

    The fields are those of `recorder.link_measured`.
    """
    run = client.get_run(run_id)
    model = find_measured(client, run, fields["model"])
    if model is None:
        return
    model_id, dataset = str(model.model_id), fields["dataset"]
    if model.source_run_id != run_id:  # a run's own models are its outputs
        inputs = run.inputs.model_inputs if run.inputs else []
        if model_id not in {each.model_id for each in inputs or ()}:
            client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    has = {
        (metric.key, metric.run_id or metric.model_id, metric.dataset_digest)
        for metric in model.metrics or ()
    }
    fresh = [key for key in fields["metrics"] if (key, run_id, dataset.get("digest")) not in has]
    _link(client, run_id, model_id, _points(client, run_id, fresh, fields["step"]), dataset)


def _tags(fields: Mapping[str, Any]) -> dict[str, str]:
    return {"pixelis.adapter": fields["name"], "pixelis.step": str(fields["step"])}


def find_model(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> LoggedModel | None:
    """Return the newest model of a run with these tags, complete or not."""
    token = None
    while True:
        page = client.search_logged_models(
            [run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
            page_token=token,
        )
        models = [model for model in page if tags.items() <= model.tags.items()]
        token = page.token
        if models or not token:
            return models[0] if models else None


def find_measured(
    client: MlflowClient, run: Run, model: Mapping[str, Any] | None
) -> LoggedModel | None:
    """Return the model with this `model_id`, or the run's own model with these `tags`."""
    if model is None:
        return None
    if "model_id" in model:
        return client.get_logged_model(model["model_id"])
    return find_model(client, run, model["tags"])


def model_of(client: MlflowClient, uri: str) -> str | None:
    """Return the id of the LoggedModel at an adapter's address, or None.

    The address is `models:/m-...`, `models:/<name>/<version>`, `models:/<name>@<alias>`,
    `runs:/<id>` or `runs:/<id>/adapters/<name>`; there is no model for a folder or another kind.
    """
    kind, _, address = uri.rstrip("/").partition(":/")
    if kind == "models" and "/" not in address and "@" not in address:
        return address
    if kind == "models":
        version = find_version(uri)
        source = str(version.source) if version else ""
        is_model = source.startswith("models:/m-")
        return source.removeprefix("models:/") if is_model else None
    run_id, _, path = address.partition("/")
    folder, _, name = (path or FINAL_ADAPTER).partition("/")
    if kind != "runs" or folder != ADAPTERS:
        return None
    try:
        model = find_model(client, client.get_run(run_id), {"pixelis.adapter": name})
    except MlflowException:  # a store that keeps adapters but no LoggedModels
        return None
    return str(model.model_id) if model else None


def _create(client: MlflowClient, run: Run, fields: Mapping[str, Any]) -> LoggedModel:
    origin, name = fields["origin"] or {}, re.sub(r"[^\w -]", "-", fields["name"])
    kept = ("base_model", "seed")
    return client.create_logged_model(
        run.info.experiment_id,
        name=f"adapter-{name}-{run.info.run_id[:8]}",
        source_run_id=run.info.run_id,
        tags=_tags(fields),
        params={"step": str(fields["step"]), **{k: str(origin[k]) for k in kept if k in origin}},
        model_type="lora-adapter",
    )


def _points(client: MlflowClient, run_id: str, keys: Sequence[str], step: int) -> list[Metric]:
    """Return the run's points of some metrics at a step, the first one of each.

    After a rollback of weights, a second point at the same step belongs to the older weights.
    """
    points: list[Metric] = []
    for key in keys:
        history = client.get_metric_history(run_id, key)
        points += [metric for metric in history if metric.step == step][:1]
    return points


def _link(
    client: MlflowClient,
    run_id: str,
    model_id: str,
    points: Sequence[Metric],
    dataset: Mapping[str, str],
) -> None:
    """Send points of the run with the model's id; MLflow then adds them only to the model."""
    linked = [
        Metric(
            point.key,
            point.value,
            point.timestamp,
            point.step,
            model_id=model_id,
            dataset_name=dataset.get("name"),
            dataset_digest=dataset.get("digest"),
        )
        for point in points
    ]
    if linked:
        client.log_batch(run_id, metrics=linked)


def _log_card_and_server(
    client: MlflowClient,
    model_id: str,
    adapter: Path,
    fields: Mapping[str, Any],
    points: Sequence[Metric],
) -> None:
    """Add the model card, MLmodel, requirements and the input example to PEFT's two files.

    The loader looks for the adapter in MLmodel's folder, so all are logged to the same one.
    """
    origin = fields["origin"]
    if origin is None:
        return
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it logs every example
    wanted = ("base_model", "min_pixels", "max_pixels", "trust_remote_code")
    # Without Pixelis itself, which is in no package index: the name could be somebody else's there.
    # So a model is served in an environment in which the project is installed.
    required = [line for line in metadata.requires("pixelis") or [] if "extra ==" not in line]
    with tempfile.TemporaryDirectory(prefix="pixelis-") as name:
        folder = Path(name) / "model"
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=LOADER,
            signature=SIGNATURE,
            input_example=input_example(fields.get("example")),
            pip_requirements=required,
            mlflow_model=Model(model_id=model_id, metadata={key: origin[key] for key in wanted}),
        )
        saved = Model.load(str(folder))
        # MLflow has counted the files beside the adapter only.
        sizes = [file.stat().st_size for file in adapter.rglob("*") if file.is_file()]
        saved.model_size_bytes = (saved.model_size_bytes or 0) + sum(sizes)
        saved.save(str(folder / "MLmodel"))
        card = build_card(model_id, fields, {point.key: point.value for point in points})
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        client.log_model_artifacts(model_id, str(folder))


def input_example(shown: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return one question about a picture as PNG bytes.

    Args:
        shown: the `question` and the `image` in base64; by default the picture is a drawn one of
            112 x 112 pixels.
    """
    if shown is not None:
        content = base64.b64decode(shown["image"])
        return pd.DataFrame([{"image": content, "question": shown["question"]}])
    picture = Image.new("RGB", (112, 112), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((14, 20, 46, 52), fill=(220, 40, 40))
    draw.rectangle((64, 60, 98, 94), fill=(40, 80, 220))
    return input_example(as_example(picture, "What is the colour of the circle?"))


def as_example(picture: Image.Image, question: str) -> dict[str, str]:
    """Return a question and its picture as JSON can hold them: a PNG in base64."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return {"image": base64.b64encode(content.getvalue()).decode(), "question": question}


def build_card(model_id: str, fields: Mapping[str, Any], measured: Mapping[str, float]) -> str:
    """Return a model card: Markdown with the front matter that hubs read."""
    origin = fields["origin"]
    base = json.dumps(origin["base_model"])  # a quoted scalar of YAML and of Python as well
    trust = ", trust_remote_code=True" if origin["trust_remote_code"] else ""
    front = ["---", f"base_model: {base}", "library_name: peft", "tags: [lora, pixelis]", "---"]
    lines = [
        *front,
        "",
        f"# Adapter `{fields['name']}`, after step {fields['step']}",
        "",
        f"A LoRA adapter for `{origin['base_model']}`, trained on a curriculum of chain-of-thought-"
        f"and-action data by Pixelis (seed {origin['seed']}). It holds no base weights.",
        "",
        "Where Pixelis is installed and MLFLOW_TRACKING_URI names the store of this model:",
        "",
        "```python",
        "import mlflow",
        "from peft import PeftModel",
        "",
        "from pixelis.models.load import load_model",
        "",
        f'folder = mlflow.artifacts.download_artifacts("models:/{model_id}")',
        f"base = load_model({base}{trust})",
        "model = PeftModel.from_pretrained(base, folder)",
        "```",
        "",
        "```bash",
        f"mlflow models serve -m models:/{model_id} --env-manager local -p 5001",
        "```",
        "",
        "## Data",
        "",
        origin["data"],
        "",
    ]
    lines += _table("Measured on the validation examples", "metric", measured)
    lines += _table("Results on the test split", "answer accuracy", fields["results"])
    if fields["events"]:
        lines += ["## Events", "", *event_rows(fields["events"]), ""]
    lines += ["## Curriculum", "", "```yaml", origin["curriculum"].rstrip(), "```", ""]
    return "\n".join(lines)


def _table(title: str, head: str, values: Mapping[str, float]) -> list[str]:
    if not values:
        return []
    rows = [f"| {key} | {value:.4f} |" for key, value in values.items()]
    return [f"## {title}", "", f"| {head} | value |", "| --- | --- |", *rows, ""]


def event_rows(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of curriculum events in Markdown, the first two its head.

    Progress and forgetting are columns where an event has one.
    """
    trials = ("progress", "forgetting")
    numbers = ("delta", *(n for n in trials if any(e.get(n) is not None for e in events)))
    head = ("step", "event", "stage", *numbers, "reason")
    rows: list[tuple[Any, ...]] = [head, ("---",) * len(head)]
    for event in events:
        values = [event.get(name) for name in numbers]
        cells = ["" if value is None else f"{value:+.4f}" for value in values]
        rows.append(
            (event["step"], event["kind"], event["to_stage"], *cells, event["reason"] or "")
        )
    return [f"| {' | '.join(map(str, row))} |" for row in rows]
