"""An adapter behind MLflow's `pyfunc`: image and question in, trajectory and answer out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import yaml

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data.images import ImageError, load_image
from pixelis.errors import DataError
from pixelis.evaluation.rollout import Rollout, roll_out
from pixelis.models.device import best_device
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import load_adapter

COLUMNS = ("image", "question")


class AdapterModel:
    """What MLflow calls `predict` of."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        """Take the adapted base and the encoder of its processor."""
        self.model, self.encoder = model, encoder

    def predict(self, inputs: pd.DataFrame, params: Mapping[str, Any] | None = None) -> Any:
        """Roll every row out: the operations that the model calls really run on its image.

        Args:
            inputs: Columns `image` (an encoded picture's bytes) and `question`.
            params: `max_operations` and `max_new_tokens` of one rollout.

        Returns:
            A table with a row an input: `answer` (None where there is none), `trajectory` (a JSON
            list of turns: what was said, the operation called, its arguments and result), `outcome`
            (answered, max_operations, no_answer).

        Raises:
            DataError: A column is missing, or an image is none.
        """
        missing = [name for name in COLUMNS if name not in inputs]
        if missing:
            raise DataError(f"the input has no column {' and '.join(missing)}: {COLUMNS} are read")
        given = dict(params or {})
        examples = [
            _example(number, row["image"], str(row["question"]))
            for number, (_, row) in enumerate(inputs.iterrows())
        ]
        rollouts = roll_out(
            self.model,
            self.encoder,
            examples,
            max_operations=int(given.get("max_operations", 8)),
            max_new_tokens=int(given.get("max_new_tokens", 96)),
            batch_size=len(examples),
        )
        return pd.DataFrame([_row(rollout) for rollout in rollouts])


def _load_pyfunc(path: str) -> AdapterModel:
    """What MLflow calls with the folder of a model: the adapter lies beside its MLmodel."""
    folder = Path(path)
    about = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["metadata"]
    name, trust = about["base_model"], about["trust_remote_code"]
    pixels = {key: about[key] for key in ("min_pixels", "max_pixels")}
    base = load_model(name, torch_dtype="auto", trust_remote_code=trust)
    encoder = Encoder(load_processor(name, **pixels, trust_remote_code=trust))
    model = load_adapter(base, folder, model_name=name).to(best_device())
    return AdapterModel(model.eval(), encoder)


def _example(number: int, image: bytes, question: str) -> Example:
    if not isinstance(image, bytes):
        got = type(image).__name__
        raise DataError(f"the image of input {number} cannot be read: it must be bytes, got {got}")
    try:
        picture = load_image(image)
    except ImageError as error:
        raise DataError(f"the image of input {number} cannot be read: {error}") from error
    return Example(
        id=f"input {number}",
        task="",
        sample_type="",
        question=question,
        images=(picture,),
        trajectory=(),
        conclusion="",
        answer="",
        ground_truth="",
    )


def _row(rollout: Rollout) -> dict[str, Any]:
    turns = [
        {
            "text": turn.text,
            "operation": turn.operation,
            "arguments": turn.arguments,
            "result": turn.result,
        }
        for turn in rollout.turns
    ]
    return {
        "answer": rollout.answer,
        "trajectory": json.dumps(turns, ensure_ascii=False),
        "outcome": rollout.outcome,
    }
