"""Checks of a training before it begins, its parameters and its identity."""

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pixelis.config import WITHOUT_EFFECT, ModelConfig, TrainingFileConfig, flatten
from pixelis.curriculum import CurriculumConfig
from pixelis.data.store import load_split
from pixelis.evaluation.evaluate import choose_examples
from pixelis.models.load import EMBEDDED, EMBEDDED_DIR, check_weights, load_encoder
from pixelis.training.inputs import check_inputs, check_model, data_digest
from pixelis.training.precision import FP32, resolve_precision

logger = logging.getLogger(__name__)

# Keys that may change at a resume. The number of processes is checked separately.
NOT_IDENTITY = (
    *WITHOUT_EFFECT,
    *("resume", "training.output_dir"),
    "training.vision_cache",  # whether features are cached is compared
    *("training.max_bad_steps", "data.exclude"),  # what stopped a training may change
    "model.gradient_checkpointing",  # the same activations, computed again
    # How a step is split into forward passes; the identity holds the product instead.
    *("training.batch_size", "training.gradient_accumulation_steps", "training.auto_batch_size"),
)


def resolved_params(
    config: TrainingFileConfig, model: ModelConfig, curriculum: CurriculumConfig
) -> dict[str, Any]:
    """Return the complete configuration as dotted keys, with the curriculum's defaults."""
    params = flatten(config.replace(curriculum=curriculum.to_dict()))
    return params | {f"model.{key}": value for key, value in flatten(model).items()}


def free_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that may differ at a resume, which then says so; `params` as below."""
    silent = ("resume", "training.output_dir")
    return {key: params[key] for key in _free_keys(params) if key in params and key not in silent}


def _free_keys(params: Mapping[str, Any]) -> tuple[str, ...]:
    precision = resolve_precision(str(params["training.precision"]))
    is_fp32 = precision == FP32 and params["model.torch_dtype"] == "float32"
    if not is_fp32 or torch.cuda.is_available():
        return NOT_IDENTITY
    # Here the padding of other evaluation batches changes no bit.
    return (*NOT_IDENTITY, "training.eval_batch_size")


def training_identity(
    params: Mapping[str, Any], model: ModelConfig, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values that a resumed training must share: configuration, data, embedded weights.

    `params` are of `resolved_params`; `digests` are the SHA-256 of the data's files.
    """
    free = _free_keys(params)
    identity = {key: value for key, value in params.items() if key not in free}
    precision = "training.precision"  # `auto` differs between machines, and so do the weights
    identity[precision] = resolve_precision(str(identity[precision]))
    split = (params[f"training.{key}"] for key in ("batch_size", "gradient_accumulation_steps"))
    identity["examples a step and process"] = math.prod(split)
    identity |= {f"data {name}": digest for name, digest in digests.items()}
    if model.model_name == EMBEDDED:  # its name stays when `make base` rebuilds it
        weights = (EMBEDDED_DIR / "model.safetensors").read_bytes()
        identity["model weights"] = hashlib.sha256(weights).hexdigest()
    return identity


def check_training(
    config: TrainingFileConfig, model: ModelConfig, curriculum: CurriculumConfig
) -> None:
    """Check base, data and the number of test examples before anything is written.

    A warning says where the rule `progress` is used with a metric that it was not made for.

    Raises:
        UserError: naming what is wrong.
    """
    metric = curriculum.performance_metric
    if curriculum.decision == "progress" and metric != "answer_likelihood":
        logger.warning(
            "curriculum.decision progress compares examples by curriculum.performance_metric %s; "
            "answer_likelihood, its default, measures the answer alone: set "
            "--curriculum.performance_metric answer_likelihood",
            metric,
        )
    data_dir = Path(config.data.path)
    check_model(model, config.training)
    encoder = load_encoder(model)
    check_weights(model.model_name)
    check_inputs(data_dir, curriculum, config.data.exclude, config.data.trusted_path)
    if config.evaluation.enabled:  # without this check it would fail after hours of training
        rows, wanted = load_split(data_dir, "test"), config.evaluation.samples_per_difficulty
        choose_examples(rows, wanted, config.training.seed, split="test", encoder=encoder)
    data_digest(data_dir)
