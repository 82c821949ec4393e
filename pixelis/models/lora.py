"""Add a LoRA adapter to a base, load a saved one, and save PiSSA and OLoRA as plain LoRA.

`families` chooses the adapted layers.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.error import NoMatchingPeftModuleError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pixelis.config import EVA
from pixelis.errors import CheckpointError, ConfigError, UserError
from pixelis.files import expand_home
from pixelis.models.families import lora_target_pattern
from pixelis.models.load import convert_load_errors
from pixelis.models.trust import check_adapter_config, describe_pickled_files

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
Tensors = Mapping[str, torch.Tensor]
TEMPORARY = "other"  # peft's name of an adapter that temporarily replaces the model's own


def add_lora(
    model: Any,
    *,
    model_name: str,
    lora_r: int,
    lora_alpha: int,
    lora_dropout: float,
    seed: int,
    init_lora_weights: str = "default",
    use_dora: bool = False,
    use_rslora: bool = False,
    train_vision: bool = False,
    train_merger: bool = False,
    eva_spread: float = 1.0,
) -> PeftModel:
    """Add a new adapter to the linear layers of the language model; everything else is frozen.

    Args:
        model: the base; peft changes it in place, and with pissa and olora its weights too
            (`subtract_from_base`).
        model_name: recorded in the adapter, so that it is never loaded on another base.
        lora_r: rank; the update is scaled by lora_alpha / lora_r (Hu et al. 2021, section 4.1).
        lora_alpha: see lora_r.
        lora_dropout: dropout on the adapter's input.
        seed: seed of the adapter's initial weights.
        init_lora_weights: `default` or a name that peft knows (`pixelis.config.INITS`); eva is only
            prepared here, `pixelis.models.eva.fit_eva` does the rest.
        use_dora: learn the magnitudes of the weights separately (Liu et al. 2024, "DoRA").
        use_rslora: scale by lora_alpha / sqrt(lora_r) (Kalajdzievski 2023).
        train_vision: adapt the linear layers of the vision tower too.
        train_merger: adapt the linear layers of the merger too.
        eva_spread: with eva, the largest rank of a layer divided by `lora_r`.

    Raises:
        ConfigError: when the model has none of these layers.
    """
    init: Any = True if init_lora_weights == "default" else init_lora_weights
    config = LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=lora_target_pattern(train_vision=train_vision, train_merger=train_merger),
        bias="none",
        task_type="CAUSAL_LM",
        init_lora_weights=init,
        use_dora=use_dora,
        use_rslora=use_rslora,
        # Where the rank changes, alpha follows to keep alpha / r; alpha / sqrt(r) would change.
        eva_config=EvaConfig(rho=eva_spread, adjust_scaling_factors=not use_rslora)
        if init == EVA
        else None,
    )
    return apply_lora_config(model, config, model_name=model_name, seed=seed)


def apply_lora_config(model: Any, config: LoraConfig, *, model_name: str, seed: int) -> PeftModel:
    """Add the adapter that a peft configuration describes to a base.

    Raises:
        ConfigError: when the model has none of the layers.
    """
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            # The alternative for EVA starts from empty weights, which no seed would determine.
            warnings.filterwarnings("ignore", message=".*low_cpu_mem_usage=False.*")
            adapted = get_peft_model(model, config)
    except NoMatchingPeftModuleError as error:
        raise ConfigError(
            f"{type(model).__name__} has no linear layer that matches {config.target_modules}; "
            "adapters are for models of the Qwen2.5-VL and Qwen3-VL families"
        ) from error
    adapted.peft_config["default"].base_model_name_or_path = model_name
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: Any, folder: Path, *, model_name: str) -> PeftModel:
    """Load a saved adapter on its base, for inference.

    Raises:
        CheckpointError: when the folder holds no adapter, or one for another base.
    """
    check_adapter(folder, model_name=model_name)
    with convert_load_errors(f"the adapter in {folder} does not fit {model_name!r}"):
        adapted = PeftModel.from_pretrained(model, str(folder))
    _check_loaded(adapted, "default", folder, model_name)
    return adapted


@contextmanager
def temporary_adapter(model: PeftModel, folder: Path, *, model_name: str) -> Iterator[PeftModel]:
    """Replace the model's adapter by a saved one inside the block, without loading the base again.

    Raises:
        CheckpointError: when the folder holds no adapter, or one for another base.
    """
    check_adapter(folder, model_name=model_name)
    own = model.active_adapter
    with convert_load_errors(f"the adapter in {folder} does not fit {model_name!r}"):
        model.load_adapter(str(folder), TEMPORARY)
    try:
        _check_loaded(model, TEMPORARY, folder, model_name)
        model.set_adapter(TEMPORARY)
        yield model.eval()
    finally:
        model.set_adapter(own)
        model.delete_adapter(TEMPORARY)


def check_adapter(folder: Path, *, model_name: str) -> None:
    """Refuse a folder without an adapter for the base.

    Raises:
        CheckpointError: with the missing file, or the adapter's own base.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} holds no adapter: {name} is missing{describe_pickled_files(folder)}"
            )
    config_file = folder / CONFIG_FILE
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{config_file} cannot be read: {error}") from error
    if not isinstance(base, str) or not _is_same_base(base, model_name):
        # repr() escapes the control characters of a foreign name, which go to the terminal.
        raise CheckpointError(
            f"the adapter in {folder} is for the base {base!r:.200}, not for {model_name!r}; "
            f"set model.model_name={base!r:.200}"
        )
    with convert_load_errors(f"the adapter in {folder} does not fit {model_name!r}"):
        check_adapter_config(config, folder)


def _is_same_base(first: str, second: str) -> bool:
    """Compare two names; a path in a tracking store may begin with the ~ of an unknown user."""
    try:
        return first == second or expand_home(first) == expand_home(second)
    except UserError:
        return False


def _check_loaded(model: PeftModel, name: str, folder: Path, model_name: str) -> None:
    """Refuse weights that peft ignored, layers without saved weights, and NaN or infinity."""
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as opened:
        saved = set(opened.keys())
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    if differing := sorted(saved ^ set(tensors)):
        raise CheckpointError(
            f"the adapter in {folder} does not fit {model_name!r}: {len(differing)} of its tensors "
            f"are missing or belong to no layer, such as {differing[0]:.200}"
        )
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise CheckpointError(
            f"the adapter in {folder} holds weights that are not finite (NaN or infinite), in "
            f"{len(broken)} of {len(tensors)} tensors, such as {broken[0]:.200}; take the adapter "
            "of an earlier checkpoint"
        )


# PiSSA and OLoRA move a part of the base's weights into the adapter, W' = W - s B0 A0, and train
# W' + s B A from (A0, B0) on (Meng et al. 2024, "PiSSA", section 4.2; Buyukakyuz 2024, "OLoRA").
# For the unchanged base W that is a plain LoRA of twice the rank, which is saved:
#
#     W' + s B A = W + s (B A - B0 A0) = W + s [B | -B0] [A ; A0]
#
# PEFT's own conversion (`path_initial_model_for_weight_conversion`) is not used: it would load a
# second adapter into the model in training, drop DoRA's magnitudes, and miss FSDP's shards. The
# saved file has both halves, so that a training can resume from it.


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
