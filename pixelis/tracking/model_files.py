"""Additional files of a logged adapter: its model card, and the files for `mlflow models`.

They hold no weights and no pickle, because `pixelis.evaluation.serving` loads the served model.
"""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from PIL import Image, ImageDraw

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


def input_example() -> pd.DataFrame:
    """Return one question about a drawn picture of 112 x 112 pixels, as PNG bytes."""
    picture = Image.new("RGB", (112, 112), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((14, 20, 46, 52), fill=(220, 40, 40))
    draw.rectangle((64, 60, 98, 94), fill=(40, 80, 220))
    content = io.BytesIO()
    picture.save(content, format="PNG")
    question = "What is the colour of the circle?"
    return pd.DataFrame([{"image": content.getvalue(), "question": question}])


def requirements() -> list[str]:
    """Return the pinned requirements of Pixelis, without Pixelis itself.

    Pixelis is in no package index, where the name could belong to somebody else. So a model is
    served in an environment in which the project is installed.
    """
    lines = metadata.requires("pixelis") or []
    return [line for line in lines if "extra ==" not in line]


def write_servable(folder: Path, model_id: str, origin: Mapping[str, Any]) -> None:
    """Write MLmodel, requirements and the input example to a new folder.

    The loader looks for the adapter in MLmodel's folder, so both are logged to the same one.
    """
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it logs every example
    wanted = ("base_model", "min_pixels", "max_pixels", "trust_remote_code")
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=LOADER,
        signature=SIGNATURE,
        input_example=input_example(),
        pip_requirements=requirements(),
        mlflow_model=Model(model_id=model_id, metadata={key: origin[key] for key in wanted}),
    )


def build_card(fields: Mapping[str, Any], measured: Mapping[str, float]) -> str:
    """Return a model card: Markdown with the front matter that hubs read."""
    origin = fields["origin"]
    base = json.dumps(origin["base_model"])  # a quoted scalar of YAML as well
    front = ["---", f"base_model: {base}", "library_name: peft", "tags: [lora, pixelis]", "---"]
    lines = [
        *front,
        "",
        f"# Adapter `{fields['name']}`, after step {fields['step']}",
        "",
        f"A LoRA adapter for `{origin['base_model']}`, trained on a curriculum of chain-of-thought-"
        f"and-action data by Pixelis (seed {origin['seed']}). It holds no base weights.",
        "",
        "```python",
        "PeftModel.from_pretrained(base, folder)   # this folder, on the base above",
        "```",
        "",
        "Served where Pixelis is installed: `mlflow models serve --env-manager local -m` and the "
        "model's address.",
        "",
        "## Data",
        "",
        origin["data"],
        "",
    ]
    lines += _table("Measured on the validation split", "metric", measured)
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
    """Return the lines of a table of curriculum events in Markdown, the first two its head."""
    lines = ["| step | event | stage | delta | reason |", "| --- | --- | --- | --- | --- |"]
    for event in events:
        delta = "" if event["delta"] is None else f"{event['delta']:+.4f}"
        cells = (event["step"], event["kind"], event["to_stage"], delta, event["reason"] or "")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
