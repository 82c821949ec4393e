"""In which numbers a training computes: bf16 where the machine is fast with it, else fp32."""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

AUTO, FP32, BF16 = PRECISIONS = ("auto", "fp32", "bf16")
SDPA_FLOAT32 = "sdpa_float32"


def resolve_precision(wanted: str) -> str:
    """`fp32` or `bf16`; `auto` takes bf16 where the processor or the GPU multiplies it natively."""
    if wanted != AUTO:
        return wanted
    if torch.cuda.is_available():
        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else FP32
    found = torch.cpu.get_capabilities()
    fast = found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16")
    return BF16 if fast else FP32


def halve_base(model: Any) -> None:
    """Put the weights of a base in bf16, in place; on a CPU, its attention stays in fp32.

    The adapter that comes on top is trained in fp32 under autocast (Micikevicius et al. 2018).
    bf16's attention is slower than fp32's on CPUs: 25 ms against 14 ms a layer, backward.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if on_cpu and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(SDPA_FLOAT32, _sdpa_float32)
        AttentionMaskInterface.register(SDPA_FLOAT32, sdpa_mask)
        model.set_attn_implementation(SDPA_FLOAT32)


def _sdpa_float32(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **words: Any,
) -> tuple[torch.Tensor, None]:
    found, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **words
    )
    return found.to(query.dtype), None
