"""An adapter as an MLflow `pyfunc` model: from image and question to trajectory and answer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import yaml

from pixelis.data.encode import Encoder
from pixelis.data.example import Example, question_only
from pixelis.data.images import ImageError, load_image
from pixelis.errors import DataError
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.models.load import best_device, load_model, load_processor
from pixelis.models.lora import load_adapter

COLUMNS = ("image", "question")
LIMITS = ("max_operations", "max_new_tokens")


class AdapterModel:
    """The model whose `predict` MLflow calls."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        """Keep the adapted base and the encoder of its processor."""
        self.model, self.encoder = model, encoder

    def predict(self, inputs: pd.DataFrame, params: Mapping[str, Any] | None = None) -> Any:
        """Roll out every row; the operations that the model calls run on its image.

        Args:
            inputs: columns `image` (an encoded picture's bytes) and `question`.
            params: `max_operations` and `max_new_tokens` of one rollout.

        Returns:
            One row per input: `answer` (or None), `trajectory` (a JSON list of turns: text,
            operation, arguments and result), `outcome` (answered, max_operations, no_answer).

        Raises:
            DataError: A column is missing, or an image cannot be read.
        """
        missing = [name for name in COLUMNS if name not in inputs]
        if missing:
            raise DataError(f"the input has no column {' and '.join(missing)}: {COLUMNS} are read")
        limits = {key: int(value) for key, value in (params or {}).items() if key in LIMITS}
        conversations = [
            Conversation(_example(number, row["image"], str(row["question"])))
            for number, (_, row) in enumerate(inputs.iterrows())
        ]
        settings = RolloutSettings(**limits, batch_size=len(conversations))
        rows = []
        for rollout in roll_out(self.model, self.encoder, conversations, settings):
            keys = ("text", "operation", "arguments", "result")
            turns = [{key: getattr(turn, key) for key in keys} for turn in rollout.turns]
            trajectory = json.dumps(turns, ensure_ascii=False)
            rows.append((rollout.answer, trajectory, rollout.outcome))
        return pd.DataFrame(rows, columns=["answer", "trajectory", "outcome"])


def _load_pyfunc(path: str) -> AdapterModel:
    """Load a model for MLflow from its folder, which holds MLmodel and the adapter."""
    folder = Path(path)
    about = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["metadata"]
    name, trust = about["base_model"], about["trust_remote_code"]
    pixels = {key: about[key] for key in ("min_pixels", "max_pixels")}
    base = load_model(name, torch_dtype="auto", trust_remote_code=trust)
    encoder = Encoder(load_processor(name, **pixels, trust_remote_code=trust))
    model = load_adapter(base, folder, model_name=name).to(best_device())
    return AdapterModel(model.eval(), encoder)


def _example(number: int, image: bytes, question: str) -> Example:
    try:
        picture = load_image(image if isinstance(image, bytes) else b"")
    except ImageError as error:
        raise DataError(f"the image of input {number} cannot be read: {error}") from error
    return question_only(f"input {number}", question, (picture,))
