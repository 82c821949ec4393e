"""The precision of the forward pass: bf16 where the machine is fast with it, else fp32."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

AUTO, FP32, BF16 = ("auto", "fp32", "bf16")
CPU_ATTENTION = "cpu_bf16"
# Up to this length, computing all scores at once is faster than computing them in blocks.
LONGEST_WHOLE = 512


def resolve_precision(wanted: str) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 where the hardware multiplies it natively."""
    if wanted != AUTO:
        return wanted
    if torch.cuda.is_available():
        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else FP32
    features = torch.cpu.get_capabilities()
    is_fast = features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16")
    return BF16 if is_fast else FP32


def autocast(bf16: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a forward pass, the same one that the Trainer uses."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def halve_base(model: Any) -> None:
    """Convert a base to bf16 in place; on a CPU, use an attention that is fast there.

    The adapter stays in fp32 and is trained under autocast (Micikevicius et al. 2018).
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
    if all(parameter.device.type == "cpu" for parameter in model.parameters()):
        use_cpu_attention(model)


def use_cpu_attention(model: Any) -> None:
    """Give a bf16 base the attention that is fast on CPUs."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(CPU_ATTENTION, _attend)
        AttentionMaskInterface.register(CPU_ATTENTION, sdpa_mask)
        model.set_attn_implementation(CPU_ATTENTION)


def skip_input_casts(adapted: Any) -> None:
    """Stop peft from casting the adapter's input, in a model that is only called under autocast.

    peft casts the input to fp32 and autocast casts it back to bf16: the same bits, but two copies
    of every activation. DoRA keeps the cast, because it computes with the input itself.
    """
    for module in adapted.modules():
        if isinstance(module, LoraLayer) and not module.lora_variant:
            module.cast_input_dtype_enabled = False


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention on a CPU: queries (B, heads, T, width) to (B, T, heads, width).

    On CPUs torch's blockwise attention is slower than plain products in bf16, and slower in bf16
    than in fp32 (forward and backward at 8 x 205 tokens, one thread: 28.9 ms in bf16, 18.1 ms in
    fp32, 8.6 ms with plain products).
    """
    length = query.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    whole = attention_mask is None and causal and dropout == 0 and length == key.shape[2]
    if whole and 1 < length <= LONGEST_WHOLE:
        return _attend_whole(query, key, value, scaling), None
    output, _ = sdpa_attention_forward(
        module,
        query.float(),
        key.float(),
        value.float(),
        attention_mask,
        scaling=scaling,
        is_causal=is_causal,
        dropout=dropout,
        **kwargs,
    )
    return output.to(query.dtype), None


def _attend_whole(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Compute causal attention at once; the queries that share a key form one matrix."""
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    shared = heads // groups
    rows = query.reshape(batch * groups, shared * length, width)
    hidden = torch.full((length, length), -torch.inf, dtype=query.dtype).triu(1)
    scores = torch.baddbmm(
        hidden.repeat(shared, 1),
        rows,
        key.reshape(batch * groups, length, width).transpose(1, 2),
        alpha=1 / math.sqrt(width) if scaling is None else scaling,
    )
    output = torch.bmm(scores.softmax(-1), value.reshape(batch * groups, length, width))
    return output.reshape(batch, heads, length, width).transpose(1, 2).contiguous()
