"""The sizes of published models, as their config.json have them: no network is needed to plan."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from pixelis.errors import CheckpointError, in_one_line
from pixelis.models.load import UNLOADABLE, resolve_model

# hidden, inner, layers, heads, key heads, vocabulary, embeddings tied to the head, tower's inner
QWEN2_5 = {
    "Qwen2.5-VL-3B": (2048, 11008, 36, 16, 2, 151936, True, 3420),
    "Qwen2.5-VL-7B": (3584, 18944, 28, 28, 4, 152064, False, 3420),
    "Qwen2.5-VL-72B": (8192, 29568, 80, 64, 8, 152064, False, 3456),
}
# hidden, inner, tied, depth of the tower, its hidden, its inner, blocks that feed middle layers
QWEN3 = {
    "Qwen3-VL-4B": (2560, 9728, True, 24, 1024, 4096, [5, 11, 17]),
    "Qwen3-VL-8B": (4096, 12288, False, 27, 1152, 4304, [8, 16, 24]),
}


def model_config(model_name: str) -> Any:
    """The configuration of a base: from its folder, the hub's cache on this machine, or built in.

    Raises:
        CheckpointError: when it is nowhere; the network is not asked.
    """
    place = resolve_model(model_name)
    known = {f"{name}-Instruct": name for name in (*QWEN2_5, *QWEN3)}
    name = known.get(model_name.rpartition("/")[2])
    try:
        return AutoConfig.from_pretrained(place, local_files_only=True)
    except UNLOADABLE as error:
        if name is not None and not Path(place).is_dir():
            return published_config(name)
        raise CheckpointError(
            f"no configuration for {model_name!r} on this machine ({in_one_line(error)}); name a "
            f"folder with its config.json, or one of {', '.join(f'Qwen/{n}' for n in known)}"
        ) from error


def published_config(name: str) -> PreTrainedConfig:
    """The configuration of a published model, such as `Qwen2.5-VL-7B`."""
    if name in QWEN2_5:
        hidden, inner, layers, heads, key_heads, vocabulary, tied, tower_inner = QWEN2_5[name]
        return Qwen2_5_VLConfig(
            text_config={
                "hidden_size": hidden,
                "intermediate_size": inner,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": key_heads,
                "vocab_size": vocabulary,
            },
            vision_config={
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": tower_inner,
                "num_heads": 16,
                "out_hidden_size": hidden,
            },
            tie_word_embeddings=tied,
            dtype="bfloat16",
        )
    hidden, inner, tied, depth, tower_hidden, tower_inner, taps = QWEN3[name]
    return Qwen3VLConfig(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
        vision_config={
            "depth": depth,
            "hidden_size": tower_hidden,
            "intermediate_size": tower_inner,
            "num_heads": 16,
            "out_hidden_size": hidden,
            "deepstack_visual_indexes": taps,
        },
        tie_word_embeddings=tied,
        dtype="bfloat16",
    )
