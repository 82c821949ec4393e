"""Models and adapters from elsewhere, looked at before a library acts on what they say.

By their JSON files and the headers of their safetensors alone: nothing is imported, unpickled or
allocated for them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pixelis.config import INITS
from pixelis.errors import CheckpointError
from pixelis.models.targets import target_pattern

# Opening one of these can run code.
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# Keys of an adapter_config.json that may be set; any other must be empty. Some of those would load
# a module by name, or repeat layers without end.
ADAPTER_KEYS = {
    *("peft_type", "task_type", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern"),
    *("alpha_pattern", "use_dora", "use_rslora", "bias", "lora_bias", "fan_in_fan_out"),
    *("init_lora_weights", "eva_config", "layers_to_transform", "qalora_group_size"),
    "megatron_core",  # a name that PEFT always writes; read only beside megatron_config
}
# Others decompose every layer as often as their name says, or need data. These cannot be switched
# off at load: an adapter that was saved as it began, by pissa, needs the base that it began with.
_BEGINNINGS = ", ".join(("true", "false", "null", *INITS[1:]))
MOST_ALPHA = 10**6
MOST_TIMES = 64  # that a rank is larger than the width of its layer
_OURS = {
    target_pattern(train_vision=v, train_merger=m) for v in (True, False) for m in (True, False)
}
# A pattern without repetition takes no time; names are joined by | where each has its own rank.
_NAMES = re.compile(r"[\w.\\|^$-]+")
_LAYERS = ("num_hidden_layers", "num_layers", "depth", "n_layer", "num_blocks")


def check_model_folder(folder: Path, *, trust_remote_code: bool) -> None:
    """Refuse a folder that asks for its own code without leave, or whose configuration is a bomb.

    Args:
        folder: of a base model; a processor alone is as good.
        trust_remote_code: the user's leave.

    Raises:
        CheckpointError: naming the file and the reason.
    """
    configs = {path.name: _read(path) for path in sorted(folder.glob("*.json"))}
    for name, config in configs.items():
        if not trust_remote_code and (asked := _find(config, "auto_map")):
            raise CheckpointError(
                f"{folder / name} asks for code of its own (auto_map: {asked!r:.100}); it is run "
                "only where model.trust_remote_code is true"
            )
    for name, config in configs.items():
        if name.endswith(".safetensors.index.json"):
            _check_index(folder / name, config)
    _check_layers(folder, configs.get("config.json"))


def tell_of_pickles(folder: Path) -> str:
    """What to say of a folder without safetensors: which files are pickled, and so unread."""
    found = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if not found:
        return ""
    return (
        f"; {', '.join(found[:3])} can run code when opened and is not read: save the weights as "
        "safetensors"
    )


def check_adapter_config(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse an adapter that is no plain LoRA, or larger than its weights.

    Args:
        config: of its adapter_config.json.
        folder: which holds its adapter_model.safetensors.

    Raises:
        CheckpointError: naming the key, the rule and the value.
        SafetensorError, OSError: when the weights cannot be read.
    """
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise _wrong(folder, "peft_type must be LORA", kind)
    for key, value in config.items():
        if key not in ADAPTER_KEYS and value not in (None, False, [], {}, ""):
            raise _wrong(folder, f"{key:.60} must not be set in an adapter that is let in", value)
    begins = config.get("init_lora_weights")
    if begins is not None and type(begins) is not bool and begins not in INITS[1:]:
        raise _wrong(folder, f"init_lora_weights must be one of {_BEGINNINGS}", begins)
    alphas = _pattern(config, "alpha_pattern", folder)
    for value in (config.get("lora_alpha", 8), *alphas):
        # Compared, never converted: an integer may be too large for a float.
        if type(value) not in (int, float) or not -MOST_ALPHA <= value <= MOST_ALPHA:
            raise _wrong(folder, f"lora_alpha must be a number of at most {MOST_ALPHA}", value)
    wanted = config.get("target_modules")
    safe = isinstance(wanted, str) and (wanted in _OURS or _NAMES.fullmatch(wanted))
    listed = isinstance(wanted, list) and all(
        isinstance(name, str) and _NAMES.fullmatch(name) for name in wanted
    )
    if wanted is not None and not safe and not listed:
        raise _wrong(folder, "target_modules must name layers, without a pattern", wanted)
    ranks = [config.get("r", 8), *_pattern(config, "rank_pattern", folder)]
    for rank in ranks:
        if type(rank) is not int or rank < 1:
            raise _wrong(folder, "r must be an integer >= 1", rank)
    held = _largest_rank(folder / "adapter_model.safetensors")
    if max(ranks) > held:
        raise _wrong(folder, f"r must be at most the rank of the weights, {held}", max(ranks))


def _wrong(folder: Path, rule: str, value: Any) -> CheckpointError:
    return CheckpointError(f"the adapter in {folder}: {rule}, got {value!r:.100}")


def _pattern(config: Mapping[str, Any], key: str, folder: Path) -> list[Any]:
    found = config.get(key) or {}
    if not isinstance(found, dict) or not all(map(_NAMES.fullmatch, found)):
        raise _wrong(folder, f"{key} must name layers, without a pattern", found)
    return list(found.values())


def _largest_rank(file: Path) -> int:
    """The largest rank among the weights of layers; 0 where there are none.

    An empty tensor, or a narrow one, takes little room in the file, however large its first side
    is: those that no layer has are passed over.
    """
    with safe_open(file, framework="pt") as opened:
        names = [n for n in opened.keys() if n.startswith("base_model.") and ".lora_A." in n]
        shapes = [opened.get_slice(name).get_shape() for name in names]
    ranks = [int(s[0]) for s in shapes if len(s) == 2 and 0 < s[0] <= MOST_TIMES * s[1]]
    return max(ranks, default=0)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # whoever needs the file says what is wrong


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    waiting = [value]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, dict):
            yield from outer.items()
            waiting += outer.values()
        elif isinstance(outer, list):
            waiting += outer


def _find(config: Any, key: str) -> Any:
    return next((value for name, value in _walk(config) if name == key and value), None)


def _check_index(path: Path, index: Any) -> None:
    names = index.get("weight_map") if isinstance(index, dict) else None
    for name in names.values() if isinstance(names, dict) else ():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{path}: weight_map must name files of the folder, got {name!r:.100}"
            )


def _check_layers(folder: Path, config: Any) -> None:
    """A layer has a tensor at the least; a configuration of more layers would build them first."""
    files = list(folder.glob("*.safetensors"))
    num_tensors = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                num_tensors += len(opened.keys())
        except (SafetensorError, OSError):
            return
    for name, value in _walk(config) if files else ():
        if name in _LAYERS and type(value) is int and value > num_tensors:
            raise CheckpointError(
                f"{folder / 'config.json'}: {name} must be at most the number of tensors, "
                f"{num_tensors}, got {value}"
            )
