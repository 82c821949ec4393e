"""The differences of model families: LoRA targets, and the sizes of published models.

LoRA targets are patterns for the complete path of a module, not name suffixes: the vision tower of
Qwen2.5-VL also has layers called `gate_proj`, `up_proj` and `down_proj`, which a suffix would match
by accident.
"""

from typing import Any

from transformers import PreTrainedConfig, Qwen2_5_VLConfig, Qwen3VLConfig

LANGUAGE = r"language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
VISION = r"visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.((gate|up|down)_proj|linear_fc[12]))"
# Qwen3-VL has one more merger for each of the three inner blocks whose output it uses (deepstack).
MERGER = r"visual\.(merger|deepstack_merger_list\.\d+)\.(mlp\.[02]|linear_fc[12])"


def lora_target_pattern(*, train_vision: bool = False, train_merger: bool = False) -> str:
    """Return the regular expression for the complete path of an adapted module.

    The linear layers of the language model always match; those of the vision tower and of the
    merger only on request (`model.train_vision`, `model.train_merger`).
    """
    selected = {LANGUAGE: True, VISION: train_vision, MERGER: train_merger}
    return rf".*({'|'.join(pattern for pattern, chosen in selected.items() if chosen)})"


def is_vision_module(path: str) -> bool:
    """Return whether a module belongs to the vision tower or a merger."""
    return ".visual." in f".{path}."


# Sizes from the published config.json files, so that `plan` needs no network.
# hidden size, MLP size, layers, heads, key/value heads, vocabulary, tied embeddings, MLP size of
# the vision tower
QWEN2_5 = {
    "Qwen2.5-VL-3B": (2048, 11008, 36, 16, 2, 151936, True, 3420),
    "Qwen2.5-VL-7B": (3584, 18944, 28, 28, 4, 152064, False, 3420),
    "Qwen2.5-VL-72B": (8192, 29568, 80, 64, 8, 152064, False, 3456),
}
# hidden size, MLP size, tied embeddings, and of the vision tower: layers, hidden size, MLP size,
# layers whose output also goes to deeper layers of the language model
QWEN3 = {
    "Qwen3-VL-4B": (2560, 9728, True, 24, 1024, 4096, [5, 11, 17]),
    "Qwen3-VL-8B": (4096, 12288, False, 27, 1152, 4304, [8, 16, 24]),
}
PUBLISHED = (*QWEN2_5, *QWEN3)


def published_config(name: str) -> PreTrainedConfig:
    """Build the configuration of a published model, such as `Qwen2.5-VL-7B`."""
    text: dict[str, Any]
    vision: dict[str, Any]
    if name in QWEN2_5:
        config_class: Any = Qwen2_5_VLConfig
        hidden, mlp, layers, heads, kv_heads, vocab, tied, vision_mlp = QWEN2_5[name]
        text = {"num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": vocab}
        text["num_key_value_heads"] = kv_heads
        vision = {"depth": 32, "hidden_size": 1280}
    else:
        config_class = Qwen3VLConfig
        hidden, mlp, tied, depth, vision_hidden, vision_mlp, deepstack = QWEN3[name]
        text = {"num_hidden_layers": 36, "num_attention_heads": 32, "vocab_size": 151936}
        text |= {"num_key_value_heads": 8, "head_dim": 128}
        vision = {"depth": depth, "hidden_size": vision_hidden}
        vision["deepstack_visual_indexes"] = deepstack
    config: PreTrainedConfig = config_class(
        text_config=text | {"hidden_size": hidden, "intermediate_size": mlp},
        vision_config=vision
        | {"intermediate_size": vision_mlp, "num_heads": 16, "out_hidden_size": hidden},
        tie_word_embeddings=tied,
        dtype="bfloat16",
    )
    return config
