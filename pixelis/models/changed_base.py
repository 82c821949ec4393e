"""PiSSA and OLoRA: adapters that take a part of the base's weights, saved as plain LoRA.

Both set W' = W - s B0 A0 and train W' + s B A from (A0, B0) on (Meng et al. 2024, "PiSSA", section
4.2; Buyukakyuz 2024, "OLoRA"). What is saved is for the untouched base:

    W' + s B A = W + s (B A - B0 A0) = W + s [B | -B0] [A ; A0]

a plain LoRA of twice the rank. PEFT has the same conversion
(`path_initial_model_for_weight_conversion`); here it is done on the saved files, since PEFT would
load a second adapter into the model that is in training, drop DoRA's magnitudes and not see FSDP's
shards. The file holds both halves, so a checkpoint is taken up again from it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from pixelis.config import CHANGING_INITS

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
Tensors = Mapping[str, torch.Tensor]


def changes_base(init_lora_weights: str) -> bool:
    """Whether an adapter that begins so takes a part of the base's weights."""
    return init_lora_weights in CHANGING_INITS


def initial_factors(model: PeftModel) -> dict[str, torch.Tensor]:
    """Copies of A0 and B0 before the first step, under their names in the adapter's file."""
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        name: value.detach().clone().cpu()
        for name, value in tensors.items()
        if ".lora_A." in name or ".lora_B." in name
    }


def write_plain(folder: Path, initial: Tensors) -> None:
    """Make the adapter that PEFT saved in a folder a plain LoRA for the untouched base."""
    tensors = load_file(folder / WEIGHTS_FILE)
    for name, start in initial.items():
        start = start.to(tensors[name].dtype)
        joined = (tensors[name], start) if ".lora_A." in name else (tensors[name], -start)
        tensors[name] = torch.cat(joined, dim=0 if ".lora_A." in name else 1).contiguous()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    # The scale stays: alpha / r, or alpha / sqrt(r) with rsLoRA.
    growth = 2**0.5 if config["use_rslora"] else 2
    config |= {
        "r": 2 * config["r"],
        "lora_alpha": growth * config["lora_alpha"],
        "init_lora_weights": True,
    }
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def split_plain(tensors: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What `write_plain` joined: the trained adapter's tensors, and the initial factors."""
    trained, initial = dict(tensors), {}
    for name, value in tensors.items():
        if ".lora_A." in name:
            trained[name], initial[name] = (half.clone() for half in value.chunk(2, dim=0))
        elif ".lora_B." in name:
            first, second = value.chunk(2, dim=1)
            trained[name], initial[name] = first.clone(), -second
    return trained, initial


def take_from_base(model: PeftModel, initial: Tensors) -> None:
    """Subtract s B0 A0 from the base's weights, as the initialisation did when training began.

    From the saved factors, not by a second decomposition: on another machine that may give others.

    Args:
        model: the base with a plain adapter of the same layers and rank.
        initial: of `split_plain`.
    """
    for name, layer in model.named_modules():
        first = f"{name}.lora_A.weight"
        if first in initial:
            _subtract(layer, initial[first], initial[f"{name}.lora_B.weight"])


def _subtract(layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    weight = layer.get_base_layer().weight
    change = layer.scaling["default"] * b.to(weight.device) @ a.to(weight.device)
    weight.data = (weight.data.to(torch.float32) - change).to(weight.dtype)
