"""From a collated batch to what `forward` is called with, and no more logits than needed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pixelis.data.encode import IGNORE_INDEX

# Of a batch, for the loss alone.
NOT_FED = ("labels", "kinds")

ROWS_TO = 64


def feed(batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The arguments of `forward` for a batch of `pixelis.data.encode.collate`.

    Where positions are known, there is no attention mask: batches are padded on the right, and in a
    causal model no token sees what comes after it. Labelled positions get the same logits, without
    the mask's cost, and with kernels that take none.
    """
    found: dict[str, Any] = {name: x for name, x in batch.items() if name not in NOT_FED}
    if "position_ids" in found:
        found.pop("attention_mask", None)
        found.pop("mm_token_type_ids", None)
    if (features := found.pop("image_features", None)) is not None:
        found.pop("image_grid_thw", None)
        outputs = BaseModelOutputWithPooling(pooler_output=(features,))  # type: ignore[arg-type]
        found["mm_encoder_outputs"] = {"image": outputs}
    return found


def output_head(model: PeftModel) -> nn.Module | None:
    """The layer that turns hidden states into logits, where the base names one."""
    base: Any = model.get_base_model()
    head: nn.Module | None = base.get_output_embeddings()
    return head


@contextmanager
def supervised_logits(head: nn.Module | None, labels: torch.Tensor) -> Iterator[None]:
    """Let the head compute logits only where a supervised token is predicted: (N, V), row by row.

    With a vocabulary of 150,000 the others are most of the memory and much of the time. On a CPU
    the head is given a multiple of 64 rows, the last of them for nothing: oneDNN keeps code and
    room for every number of rows that it meets, and no two steps supervise as many tokens.

    Args:
        head: the model's output embeddings; None: all logits, (B, T, V).
        labels: (B, T); position t is predicted from t - 1.
    """
    if head is None:
        yield
        return
    wanted = nn.functional.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1)).flatten()
    places = wanted.nonzero().squeeze(1)
    num_wanted = len(places)
    rows_to = ROWS_TO if labels.device.type == "cpu" else 1
    filled = nn.functional.pad(places, (0, -num_wanted % rows_to))

    def select(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (given[0].flatten(0, 1)[filled.to(given[0].device)],)

    def cut(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor:
        return made if len(made) == num_wanted else made[:num_wanted]

    handles = [head.register_forward_pre_hook(select), head.register_forward_hook(cut)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
