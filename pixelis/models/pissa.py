"""Save PiSSA and OLoRA adapters as plain LoRA, for the unchanged base.

Both initialisations move a part of the base's weights into the adapter, W' = W - s B0 A0, and train
W' + s B A from (A0, B0) on (Meng et al. 2024, "PiSSA", section 4.2; Buyukakyuz 2024, "OLoRA").
For the unchanged base W that is a plain LoRA of twice the rank, which is saved:

    W' + s B A = W + s (B A - B0 A0) = W + s [B | -B0] [A ; A0]

PEFT's own conversion (`path_initial_model_for_weight_conversion`) is not used: it would load a
second adapter into the model in training, drop DoRA's magnitudes, and miss FSDP's shards. The saved
file has both halves, so that a training can resume from it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from pixelis.config import CHANGING_INITS
from pixelis.models.lora import CONFIG_FILE, WEIGHTS_FILE

Tensors = Mapping[str, torch.Tensor]


def changes_base(init_lora_weights: str) -> bool:
    """Return whether an initialisation moves a part of the base's weights into the adapter."""
    return init_lora_weights in CHANGING_INITS


def initial_factors(model: PeftModel) -> dict[str, torch.Tensor]:
    """Copy A0 and B0 before the first step, under their names in the adapter's file."""
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        name: value.detach().clone().cpu()
        for name, value in tensors.items()
        if ".lora_A." in name or ".lora_B." in name
    }


def convert_to_plain_lora(folder: Path, initial: Tensors) -> None:
    """Convert the adapter that PEFT saved in a folder into a plain LoRA for the unchanged base.

    Args:
        folder: the adapter's folder; both of its files are rewritten.
        initial: the result of `initial_factors`.
    """
    tensors = load_file(folder / WEIGHTS_FILE)
    for name, start in initial.items():
        start = start.to(tensors[name].dtype)
        is_a = ".lora_A." in name
        both = (tensors[name], start if is_a else -start)
        tensors[name] = torch.cat(both, dim=0 if is_a else 1).contiguous()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    # The scale stays the same: alpha / r, or alpha / sqrt(r) with rsLoRA.
    growth = 2**0.5 if config["use_rslora"] else 2
    config |= {
        "r": 2 * config["r"],
        "lora_alpha": growth * config["lora_alpha"],
        "init_lora_weights": True,
    }
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def split_plain_lora(tensors: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Split the halves that `convert_to_plain_lora` joined: trained tensors and initial factors."""
    trained, initial = dict(tensors), {}
    for name, value in tensors.items():
        if ".lora_A." in name:
            trained[name], initial[name] = (half.clone() for half in value.chunk(2, dim=0))
        elif ".lora_B." in name:
            first, second = value.chunk(2, dim=1)
            trained[name], initial[name] = first.clone(), -second
    return trained, initial


def subtract_from_base(model: PeftModel, initial: Tensors) -> None:
    """Subtract s B0 A0 from the base's weights, as the initialisation did when training began.

    The saved factors are used and not a second decomposition, which may differ between machines.

    Args:
        model: the base with a plain adapter of the same layers and rank.
        initial: the second result of `split_plain_lora`.
    """
    for name, module in model.named_modules():
        if f"{name}.lora_A.weight" in initial:
            layer: Any = module
            weight = layer.get_base_layer().weight
            a = initial[f"{name}.lora_A.weight"].to(weight.device)
            b = initial[f"{name}.lora_B.weight"].to(weight.device)
            change = layer.scaling["default"] * b @ a
            weight.data = (weight.data.to(torch.float32) - change).to(weight.dtype)
