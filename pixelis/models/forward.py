"""Turn a collated batch into the arguments of `forward`, and compute only the logits needed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pixelis.data.encode import IGNORE_INDEX

LOSS_ONLY = ("labels", "kinds")  # entries of a batch that the model does not take
CPU_ROWS = 64


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the arguments of `forward` for a batch of `pixelis.data.encode.collate`.

    A batch with position ids gets no attention mask: it is padded on the right, and in a causal
    model no token sees the ones after it. The logits of labelled positions stay the same, without
    the cost of the mask, and kernels that take no mask can run.
    """
    inputs: dict[str, Any] = {name: x for name, x in batch.items() if name not in LOSS_ONLY}
    if "position_ids" in inputs:
        inputs.pop("attention_mask", None)
        inputs.pop("mm_token_type_ids", None)
    if (features := inputs.pop("image_features", None)) is not None:
        inputs.pop("image_grid_thw", None)
        outputs = BaseModelOutputWithPooling(pooler_output=(features,))  # type: ignore[arg-type]
        inputs["mm_encoder_outputs"] = {"image": outputs}
    return inputs


def output_head(model: PeftModel) -> nn.Module | None:
    """Return the layer that computes logits from hidden states; None if the base names none."""
    base: Any = model.get_base_model()
    head: nn.Module | None = base.get_output_embeddings()
    return head


@contextmanager
def supervised_logits(head: nn.Module | None, labels: torch.Tensor) -> Iterator[None]:
    """Make the head compute logits only where a supervised token is predicted: (N, V), by row.

    With a vocabulary of 150,000 the other logits are most of the memory and much of the time. On a
    CPU the number of rows is padded to a multiple of 64: oneDNN keeps compiled code and memory for
    every number of rows that it has seen, and hardly two steps supervise equally many tokens.

    Args:
        head: the model's output embeddings; None: all logits are computed, (B, T, V).
        labels: (B, T); position t is predicted from t - 1.
    """
    if head is None:
        yield
        return
    predicts = nn.functional.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1)).flatten()
    rows = predicts.nonzero().squeeze(1)
    num_rows = len(rows)
    multiple = CPU_ROWS if labels.device.type == "cpu" else 1
    padded = nn.functional.pad(rows, (0, -num_rows % multiple))

    def select(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0].flatten(0, 1)[padded.to(args[0].device)],)

    def cut(module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        return out if len(out) == num_rows else out[:num_rows]

    handles = [head.register_forward_pre_hook(select), head.register_forward_hook(cut)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
