"""LoRA on the language model: which linear layers, and the adapter around the base."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from pixelis.errors import CheckpointError
from pixelis.models.load import UNLOADABLE, in_one_line

# By path, not by suffix: Qwen2.5-VL's vision tower has gate, up and down projections as well.
TARGET_MODULES = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"

OTHER = "other"


def add_lora(
    model: Any, *, model_name: str, lora_r: int, lora_alpha: int, lora_dropout: float, seed: int
) -> PeftModel:
    """Put a fresh adapter on every linear layer of the language model; all else is frozen.

    Args:
        model: the base; changed in place by peft.
        model_name: recorded in the adapter, so that it is never put on another base.
        lora_r: rank; the update is scaled by lora_alpha / lora_r (Hu et al. 2021, section 4.1).
        lora_alpha: see lora_r.
        lora_dropout: dropout on the adapter's input.
        seed: of the adapter's initial weights.
    """
    config = LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=TARGET_MODULES,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = model_name
    if not isinstance(adapted, PeftModel):
        raise TypeError(f"peft gave a {type(adapted).__name__}, expected a PeftModel")
    return adapted


@contextmanager
def other_adapter(model: PeftModel, folder: Path, *, model_name: str) -> Iterator[PeftModel]:
    """Let another saved adapter stand in for the model's own, without loading the base again.

    Raises:
        CheckpointError: when the folder holds no adapter, or one for another base.
    """
    check_adapter(folder, model_name=model_name)
    own = model.active_adapter
    try:
        model.load_adapter(str(folder), OTHER)
    except UNLOADABLE as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {model_name!r}: {in_one_line(error)}"
        ) from error
    model.set_adapter(OTHER)
    try:
        yield model.eval()
    finally:
        model.set_adapter(own)
        model.delete_adapter(OTHER)


def check_adapter(folder: Path, *, model_name: str) -> None:
    """Refuse a folder without an adapter for the base.

    Raises:
        CheckpointError: naming what is missing, or the base that it is for.
    """
    config_file = folder / "adapter_config.json"
    for path in (config_file, folder / "adapter_model.safetensors"):
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no adapter: {path.name} is missing")
    try:
        base = json.loads(config_file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{config_file} cannot be read: {error}") from error
    # In a tracking store a folder in somebody's home begins with ~.
    if base is None or Path(base).expanduser() != Path(model_name).expanduser():
        raise CheckpointError(
            f"the adapter in {folder} is for the base {base!r}, not for {model_name!r}; "
            f"set model.model_name={base}"
        )


def load_adapter(model: Any, folder: Path, *, model_name: str) -> PeftModel:
    """Put a saved adapter on its base, for inference.

    Raises:
        CheckpointError: when the folder holds no adapter, or one for another base.
    """
    check_adapter(folder, model_name=model_name)
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except UNLOADABLE as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {model_name!r}: {in_one_line(error)}"
        ) from error
