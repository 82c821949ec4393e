"""The architecture of the embedded base: Qwen2.5-VL's own classes with three million parameters."""

from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

HIDDEN = 192
# About 1 / sqrt(width): Qwen's 0.02 suits a width of thousands and learns slowly at this width.
INIT_STD = 0.06
MIN_PIXELS = 28 * 28
MAX_PIXELS = 224 * 224


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Build Qwen2.5-VL's processor with the small tokenizer: patch 14, merge 2, up to 224 x 224."""
    size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=tokenizer.chat_template,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Build the configuration: 4 language layers of width 192, 4 vision blocks of width 128."""

    def token(text: str) -> int:
        index = tokenizer.convert_tokens_to_ids(text)
        assert isinstance(index, int), f"{text} is not a single token"
        return index

    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        # Four heads of 48: most of their rotary dimensions turn slowly enough to match content.
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            # As in Qwen2.5-VL. With a base of 20, which separates cells by angle, the model never
            # learned to look anything up: attention matches content by slow rotations.
            "rope_theta": 1000000.0,
            "mrope_section": [6, 9, 9],
        },
        "initializer_range": INIT_STD,
        "bos_token_id": None,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": HIDDEN,
        "fullatt_block_indexes": [1, 3],
        "initializer_range": INIT_STD,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
