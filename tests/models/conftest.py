"""The published models' sizes, as their config.json have them, without their weights."""

from types import SimpleNamespace

import pytest
from transformers import Qwen2_5_VLConfig, Qwen3VLConfig


def _qwen2_5(hidden, inner, layers, heads, key_heads, vocab, tied, vision_inner):
    text = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocab,
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": vision_inner,
        "num_heads": 16,
        "out_hidden_size": hidden,
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)


def _qwen3(hidden, inner, tied, depth, vision_hidden, vision_inner, taps):
    text = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    }
    vision = {
        "depth": depth,
        "hidden_size": vision_hidden,
        "intermediate_size": vision_inner,
        "num_heads": 16,
        "out_hidden_size": hidden,
        "deepstack_visual_indexes": taps,
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)


@pytest.fixture(scope="session")
def published():
    """Name -> configuration, parameters in all, and those of an adapter of rank 32 by default."""
    seven = (3584, 18944, 28, 28, 4, 152064, False, 3420)
    three = (2048, 11008, 36, 16, 2, 151936, True, 3420)
    large = (8192, 29568, 80, 64, 8, 152064, False, 3456)
    configs = {
        "Qwen2.5-VL-3B": (_qwen2_5(*three), 3_754_622_976, 59_867_136),
        "Qwen2.5-VL-7B": (_qwen2_5(*seven), 8_292_166_656, 80_740_352),
        "Qwen2.5-VL-72B": (_qwen2_5(*large), 73_410_777_344, 421_068_800),
        "Qwen3-VL-4B": (
            _qwen3(2560, 9728, True, 24, 1024, 4096, [5, 11, 17]),
            4_437_815_808,
            66_060_288,
        ),
        "Qwen3-VL-8B": (
            _qwen3(4096, 12288, False, 27, 1152, 4304, [8, 16, 24]),
            8_767_123_696,
            87_293_952,
        ),
    }
    fields = ("config", "num_parameters", "num_trainable")
    return {
        name: SimpleNamespace(**dict(zip(fields, values, strict=True)))
        for name, values in configs.items()
    }
