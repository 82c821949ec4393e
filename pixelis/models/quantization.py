"""Load a base in 4 bits (QLoRA, Dettmers et al. 2023)."""

import importlib.util
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from pixelis.errors import ConfigError

# Only the language model is quantised: the vision tower is small and sensitive to rounding. The
# embeddings and the output head keep their dtype.
SKIPPED = ("model.visual", "lm_head")


def check_quantization() -> None:
    """Refuse 4 bits on a machine that cannot compute with them.

    Raises:
        ConfigError: without CUDA, or without bitsandbytes.
    """
    if not torch.cuda.is_available():
        raise ConfigError("model.load_in_4bit must be false here, got true (it needs a CUDA GPU)")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.load_in_4bit needs the package bitsandbytes; install it with "
            "pip install -e '.[quantization]'"
        )


def quantization_config(compute_dtype: torch.dtype) -> Any:
    """Return NF4 with quantised scales (QLoRA, section 3); products are in `compute_dtype`."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(SKIPPED),  # despite its name, it applies to 4 bits too
    )
