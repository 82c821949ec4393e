"""What `mlflow models` needs to serve an adapter, beside PEFT's files: no weights, no pickle."""

import io
import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from PIL import Image, ImageDraw

# By its name: MLflow imports it where the model is loaded, and this package need not know torch.
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
    """One question about a drawn picture of 112 x 112 pixels, as PNG bytes."""
    picture = Image.new("RGB", (112, 112), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((14, 20, 46, 52), fill=(220, 40, 40))
    draw.rectangle((64, 60, 98, 94), fill=(40, 80, 220))
    content = io.BytesIO()
    picture.save(content, format="PNG")
    question = "What is the colour of the circle?"
    return pd.DataFrame([{"image": content.getvalue(), "question": question}])


def requirements() -> list[str]:
    """What Pixelis needs, pinned, without Pixelis itself.

    No index has it, and one of that name there would be somebody else's: a model is served where
    the project is installed.
    """
    wanted = metadata.requires("pixelis") or []
    return [line for line in wanted if "extra ==" not in line]


def write_servable(folder: Path, model_id: str, origin: Mapping[str, Any]) -> None:
    """Write MLmodel, requirements and the input example to a folder that is not there yet.

    The loader finds the adapter where MLmodel lies, so both go to one place.

    Args:
        folder: Made.
        model_id: The LoggedModel that the files are for.
        origin: Of the adapter: base, image bounds, remote code.
    """
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells of every example
    wanted = ("base_model", "min_pixels", "max_pixels", "trust_remote_code")
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=LOADER,
        signature=SIGNATURE,
        input_example=input_example(),
        pip_requirements=requirements(),
        mlflow_model=Model(model_id=model_id, metadata={key: origin[key] for key in wanted}),
    )
