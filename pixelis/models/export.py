"""An adapter merged into its base, compared with what it was, and saved for others to load.

Everything is computed in fp32, so that what differs is the merging and not the order of sums in a
coarse type: x W + s x A B and x (W + s A B) agree to about six digits. Weights are rounded once, to
the type in which they are saved.
"""

import gc
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from pixelis.data.encode import Encoder, collate, encode_example
from pixelis.data.example import Example
from pixelis.errors import CheckpointError, ConfigError, in_one_line
from pixelis.files import file_sha256, put_folder
from pixelis.models.load import (
    DTYPES,
    UNLOADABLE,
    load_model,
    load_processor,
    resolve_model,
)
from pixelis.models.lora import load_adapter

ABOUT_FILE = "pixelis_export.json"
BASE_DTYPE = "base"


@dataclass(frozen=True)
class Exported:
    """What was saved, and how far it is from the base with its adapter.

    Attributes:
        base_model: the base's name.
        adapter: where the adapter came from.
        dtype: of the saved weights.
        num_positions: tokens of the example on which logits were compared.
        merging: largest difference of a logit between adapter and merged weights, in fp32.
        reading: the same between the folder, read back, and the merged weights rounded to `dtype`.
        rounding: the same that rounding to `dtype` makes; 0 for float32.
        same_token: share of positions whose most likely token rounding leaves as it was.
        sha256: of each saved file.
    """

    base_model: str
    adapter: str
    dtype: str
    num_positions: int
    merging: float
    reading: float
    rounding: float
    same_token: float
    sha256: dict[str, str]


def check_place(folder: Path) -> None:
    """Refuse to write over anything, and a place where no folder can be made.

    Raises:
        ConfigError: when the folder is there, or its parent is none.
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
    model_name: str,
    source: str,
    save_dtype: str = "float32",
    tolerance: float = 1e-3,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    trust_remote_code: bool = False,
) -> Exported:
    """Merge an adapter into its base and save it with its processor, whole or not at all.

    Args:
        adapter: its folder, in PEFT's layout.
        folder: is made.
        example: whose conversation the logits are compared on.
        model_name: of the base.
        source: the adapter's address, as the user gave it.
        save_dtype: a key of `DTYPES`, or `base`; any but float32 rounds, which `tolerance` allows.
        tolerance: of `Exported.merging` and `Exported.reading`.
        min_pixels: smallest area of an image; it is saved with the processor.
        max_pixels: largest area of an image; it is saved with the processor.
        trust_remote_code: let the base's own code run.

    Raises:
        ConfigError: when the folder is there.
        CheckpointError: when adapter or base cannot be loaded, or a difference is over `tolerance`.
    """
    check_place(folder)
    dtype = save_dtype
    if save_dtype == BASE_DTYPE:
        dtype = base_dtype(model_name, trust_remote_code=trust_remote_code)
    load: dict[str, Any] = {"torch_dtype": "float32", "trust_remote_code": trust_remote_code}
    processor = load_processor(
        model_name,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        trust_remote_code=trust_remote_code,
    )
    inputs = _inputs(processor, example)
    adapted: Any = load_adapter(load_model(model_name, **load), adapter, model_name=model_name)
    before = _logits(adapted, inputs)
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # NaN or infinite weights
        raise CheckpointError(f"the adapter {source} cannot be merged: {error}") from error
    merging = _difference(before, _logits(merged, inputs))
    _check(merging, tolerance, "merged into its base, the adapter says something else")
    _convert(merged, DTYPES[dtype])
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)  # of an export that was killed
    try:
        merged.save_pretrained(str(staged))
        processor.save_pretrained(str(staged))
        _convert(merged, torch.float32)
        rounded = _logits(merged, inputs)
        del adapted, merged
        gc.collect()  # two of a large model may not fit
        again = load_model(str(staged.resolve()), **load)
        own = _inputs(load_processor(str(staged.resolve())), example)
        reading = _difference(rounded, _logits(again, own))
        _check(reading, tolerance, "what was saved, read back, says something else")
        exported = Exported(
            base_model=model_name,
            adapter=source,
            dtype=dtype,
            num_positions=before.shape[1],
            merging=merging,
            reading=reading,
            rounding=_difference(before, rounded),
            same_token=float((before.argmax(-1) == rounded.argmax(-1)).float().mean()),
            sha256={file.name: file_sha256(file) for file in sorted(staged.iterdir())},
        )
        text = json.dumps(asdict(exported), indent=2)
        (staged / ABOUT_FILE).write_text(text, encoding="utf-8")
        put_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return exported


def base_dtype(model_name: str, *, trust_remote_code: bool = False) -> str:
    """The type in which a base's weights are saved, by its configuration; float32 if it is silent.

    Raises:
        CheckpointError: when the base cannot be found.
    """
    place = resolve_model(model_name)
    try:
        saved = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code).dtype
    except UNLOADABLE as error:
        raise CheckpointError(f"no model for {model_name!r}: {in_one_line(error)}") from error
    names = {dtype: name for name, dtype in DTYPES.items()}
    return names.get(saved, "float32")


def _inputs(processor: Any, example: Example) -> dict[str, torch.Tensor]:
    encoder = Encoder(processor)
    batch = collate([encode_example(example, encoder)], encoder)
    return {name: value for name, value in batch.items() if name not in ("labels", "kinds")}


@torch.inference_mode()
def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (1, T, V) of every position."""
    found: torch.Tensor = model.eval()(**inputs).logits
    return found


def _convert(model: Any, dtype: torch.dtype) -> None:
    """Give the weights a type; not the buffers, which are made in fp32 and saved by nobody."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _difference(first: torch.Tensor, second: torch.Tensor) -> float:
    if first.shape != second.shape:  # another tokenizer or image size
        return float("inf")
    return float((first - second).abs().max())


def _check(difference: float, tolerance: float, what: str) -> None:
    if not difference <= tolerance:  # also where it is not a number
        raise CheckpointError(
            f"{what}: a logit differs by {difference:.3g}, more than tolerance {tolerance:g}; "
            "nothing was written"
        )
