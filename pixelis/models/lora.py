"""LoRA: the adapter around the base, and back from disk."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.error import NoMatchingPeftModuleError
from safetensors import SafetensorError, safe_open

from pixelis.config import EVA
from pixelis.errors import CheckpointError, ConfigError, UserError, in_one_line
from pixelis.files import expanded
from pixelis.models.load import UNLOADABLE
from pixelis.models.targets import target_pattern
from pixelis.models.untrusted import check_adapter_config, tell_of_pickles

OTHER = "other"


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
    """Put a fresh adapter on the linear layers of the language model; all else is frozen.

    Args:
        model: the base; changed in place by peft, and its weights too by pissa and olora
            (`pixelis.models.changed_base`).
        model_name: recorded in the adapter, so that it is never put on another base.
        lora_r: rank; the update is scaled by lora_alpha / lora_r (Hu et al. 2021, section 4.1).
        lora_alpha: see lora_r.
        lora_dropout: dropout on the adapter's input.
        seed: of the adapter's initial weights.
        init_lora_weights: `default` or a name that peft knows (`pixelis.config.INITS`); eva is only
            prepared: `pixelis.models.eva.fit_eva` does the rest.
        use_dora: learn the weights' lengths apart (Liu et al. 2024, "DoRA").
        use_rslora: scale by lora_alpha / sqrt(lora_r) (Kalajdzievski 2023).
        train_vision: adapters on the vision tower's linear layers too.
        train_merger: adapters on the merger's linear layers too.
        eva_spread: of eva: the largest rank of a layer, over `lora_r`.

    Raises:
        ConfigError: when the model has none of these layers.
    """
    init: Any = True if init_lora_weights == "default" else init_lora_weights
    config = LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=target_pattern(train_vision=train_vision, train_merger=train_merger),
        bias="none",
        task_type="CAUSAL_LM",
        init_lora_weights=init,
        use_dora=use_dora,
        use_rslora=use_rslora,
        # With another rank alpha follows, so that alpha / r stays; alpha / sqrt(r) would not.
        eva_config=EvaConfig(rho=eva_spread, adjust_scaling_factors=not use_rslora)
        if init == EVA
        else None,
    )
    return wrap(model, config, model_name=model_name, seed=seed)


def wrap(model: Any, config: LoraConfig, *, model_name: str, seed: int) -> PeftModel:
    """Put the adapter that a configuration describes around a base.

    Raises:
        ConfigError: when the model has none of the layers.
    """
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            # EVA's other way starts from empty weights, and these would be left to no seed.
            warnings.filterwarnings("ignore", message=".*low_cpu_mem_usage=False.*")
            adapted = get_peft_model(model, config)
    except NoMatchingPeftModuleError as error:
        raise ConfigError(
            f"{type(model).__name__} has no linear layer that matches {config.target_modules}; "
            "adapters are for models of the Qwen2.5-VL and Qwen3-VL families"
        ) from error
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
    try:
        _check_used(model, OTHER, folder, model_name)
    except CheckpointError:
        model.delete_adapter(OTHER)
        raise
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
            told = tell_of_pickles(folder)
            raise CheckpointError(f"{folder} holds no adapter: {path.name} is missing{told}")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{config_file} cannot be read: {error}") from error
    if not isinstance(base, str) or not _is_same_base(base, model_name):
        # A name from elsewhere goes to the terminal: with its control characters escaped.
        raise CheckpointError(
            f"the adapter in {folder} is for the base {base!r:.200}, not for {model_name!r}; "
            f"set model.model_name={base!r:.200}"
        )
    try:
        check_adapter_config(config, folder)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {model_name!r}: {in_one_line(error)}"
        ) from error


def _is_same_base(one: str, other: str) -> bool:
    """In a tracking store a folder in somebody's home begins with ~, perhaps of nobody here."""
    try:
        return one == other or expanded(one) == expanded(other)
    except UserError:
        return False


def load_adapter(model: Any, folder: Path, *, model_name: str) -> PeftModel:
    """Put a saved adapter on its base, for inference.

    Raises:
        CheckpointError: when the folder holds no adapter, or one for another base.
    """
    check_adapter(folder, model_name=model_name)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except UNLOADABLE as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {model_name!r}: {in_one_line(error)}"
        ) from error
    _check_used(adapted, "default", folder, model_name)
    return adapted


def _check_used(model: PeftModel, name: str, folder: Path, model_name: str) -> None:
    """Refuse weights that peft passed over, and layers that it left as they begin: the base's."""
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as opened:
        held = set(opened.keys())
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    if differing := sorted(held ^ set(tensors)):
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
