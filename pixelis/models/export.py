"""Merge an adapter into its base, compare the logits, and save the result for other programs.

Everything is computed in fp32, so that a difference comes from the merging and not from the order
of sums in a coarse dtype: x W + s x A B and x (W + s A B) agree to about six digits. The weights
are rounded once, to the dtype in which they are saved.
"""

import gc
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder, collate, encode_example
from pixelis.data.example import Example
from pixelis.errors import CheckpointError, ConfigError
from pixelis.files import file_sha256, replace_folder
from pixelis.models.forward import LOSS_ONLY
from pixelis.models.load import DTYPES, load_encoder, load_model, load_model_config, load_processor
from pixelis.models.lora import load_adapter

REPORT_FILE = "pixelis_export.json"
BASE_DTYPE = "base"


@dataclass(frozen=True)
class ExportReport:
    """What was saved, and how much its logits differ from the base with its adapter."""

    base_model: str  # the base's name
    adapter: str  # the adapter's folder or address
    dtype: str  # the dtype of the saved weights
    num_positions: int  # number of tokens whose logits were compared
    merging: float  # largest difference of a logit between adapter and merged weights, in fp32
    # The same between the saved folder, loaded again, and the merged weights rounded to `dtype`.
    reading: float
    rounding: float  # the difference caused by rounding to `dtype`; 0 for float32
    same_token: float  # share of positions whose most likely token is the same after rounding
    sha256: dict[str, str]  # the SHA-256 of each saved file


def check_output_folder(folder: Path) -> None:
    """Refuse an existing folder, and a path where no folder can be created.

    Raises:
        ConfigError: when the folder exists, or cannot be created.
    """
    if folder.exists():
        raise ConfigError(f"output_dir must not be there yet, got {folder}; name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder.parent, os.W_OK):
        raise ConfigError(f"output_dir {folder} cannot be made: {folder.parent} is read-only")


def export_merged(
    adapter: Path,
    folder: Path,
    example: Example,
    *,
    model: ModelConfig,
    source: str,
    save_dtype: str = "float32",
    tolerance: float = 1e-3,
) -> ExportReport:
    """Merge an adapter into its base and save it with its processor, completely or not at all.

    Args:
        adapter: the adapter's folder, in PEFT's layout.
        folder: the folder to create.
        example: the conversation on which the logits are compared.
        model: the base; the areas of its images are saved with the processor.
        source: the adapter's address, as the user gave it.
        save_dtype: a key of `DTYPES`, or `base`; the effect of rounding is reported, not limited.
        tolerance: largest allowed `ExportReport.merging` and `ExportReport.reading`.

    Raises:
        ConfigError: when the folder exists.
        CheckpointError: when adapter or base cannot be loaded, or a difference is over `tolerance`.
    """
    check_output_folder(folder)
    name, trust = model.model_name, model.trust_remote_code
    dtype = base_dtype(name, trust_remote_code=trust) if save_dtype == BASE_DTYPE else save_dtype
    encoder = load_encoder(model)
    inputs = _inputs(encoder, example)
    base = load_model(name, torch_dtype="float32", trust_remote_code=trust)
    adapted: Any = load_adapter(base, adapter, model_name=name)
    before = _logits(adapted, inputs)
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # NaN or infinite weights
        raise CheckpointError(f"the adapter {source} cannot be merged: {error}") from error
    merging = _largest_difference(before, _logits(merged, inputs))
    _check(merging, tolerance, "merged into its base, the adapter says something else")
    _convert(merged, DTYPES[dtype])
    staged = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)  # left by a killed export
    try:
        merged.save_pretrained(str(staged))
        encoder.processor.save_pretrained(str(staged))
        _convert(merged, torch.float32)
        rounded = _logits(merged, inputs)
        del base, adapted, merged
        gc.collect()  # two copies of a large model may not fit
        saved = str(staged.resolve())
        loaded = load_model(saved, torch_dtype="float32", trust_remote_code=trust)
        reading = _largest_difference(
            rounded, _logits(loaded, _inputs(Encoder(load_processor(saved)), example))
        )
        _check(reading, tolerance, "what was saved, read back, says something else")
        report = ExportReport(
            base_model=name,
            adapter=source,
            dtype=dtype,
            num_positions=before.shape[1],
            merging=merging,
            reading=reading,
            rounding=_largest_difference(before, rounded),
            same_token=float((before.argmax(-1) == rounded.argmax(-1)).float().mean()),
            sha256={file.name: file_sha256(file) for file in sorted(staged.iterdir())},
        )
        text = json.dumps(asdict(report), indent=2)
        (staged / REPORT_FILE).write_text(text, encoding="utf-8")
        replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return report


def base_dtype(model_name: str, *, trust_remote_code: bool = False) -> str:
    """Return the dtype of a base's saved weights by its configuration; float32 without one.

    Raises:
        CheckpointError: when the base cannot be found.
    """
    saved = load_model_config(model_name, trust_remote_code=trust_remote_code).dtype
    return next((name for name, dtype in DTYPES.items() if dtype == saved), "float32")


def _inputs(encoder: Encoder, example: Example) -> dict[str, torch.Tensor]:
    batch = collate([encode_example(example, encoder)], encoder)
    return {name: value for name, value in batch.items() if name not in LOSS_ONLY}


@torch.inference_mode()
def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(**inputs).logits
    return logits


def _convert(model: Any, dtype: torch.dtype) -> None:
    # Not the buffers: they are fp32 and never saved.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    if first.shape != second.shape:  # another tokenizer or image size
        return float("inf")
    return float((first - second).abs().max())


def _check(difference: float, tolerance: float, what: str) -> None:
    if not difference <= tolerance:  # also refuses NaN
        raise CheckpointError(
            f"{what}: a logit differs by {difference:.3g}, more than tolerance {tolerance:g}; "
            "nothing was written"
        )
