"""The loss of a training: cross-entropy per supervised token of the whole optimiser step."""

from typing import Any

import torch
from torch import nn

from pixelis.data.encode import IGNORE_INDEX, OPERATION


def compute_token_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    kinds: torch.Tensor | None = None,
    operation_weight: float = 1.0,
) -> torch.Tensor:
    """Summed cross-entropy over the supervised tokens of the whole optimiser step, per token.

    The model's own loss is a mean over each micro-batch: accumulation would then weigh a token by
    the company it keeps. The tokens of a call may weigh more than those around it, as operation and
    argument tokens do in the Pixelis paper (arXiv 2603.25091); the sum is still divided by the
    number of tokens.

    Args:
        outputs: with `logits` of shape (B, T, V), or (N, V) for the N supervised tokens, in nats.
        labels: (B, T); position t is predicted from t - 1.
        num_items_in_batch: supervised tokens in all micro-batches of the step.
        kinds: (B, T); OPERATION on the tokens of a call.
        operation_weight: of these; 1: all weigh alike.
    """
    targets = labels[:, 1:].flatten()
    wanted = targets != IGNORE_INDEX
    logits = outputs["logits"]
    if logits.dim() == 3:
        logits = logits[:, :-1].flatten(0, 1)[wanted]
    targets = targets[wanted]
    if operation_weight == 1 or kinds is None:
        loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    else:
        each = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        in_call = kinds[:, 1:].flatten()[wanted] == OPERATION
        loss = torch.where(in_call, operation_weight * each, each).sum()
    count = len(targets) if num_items_in_batch is None else num_items_in_batch
    return loss / count
