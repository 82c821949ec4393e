"""Cross-entropy per supervised token; a call's tokens may weigh more."""

import pytest
import torch

from pixelis.data.encode import IGNORE_INDEX, OPERATION
from pixelis.training.trainer import compute_token_loss


@pytest.fixture
def batch():
    """Two rows of five tokens, six of them supervised, three of these in a call."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator)
    labels = torch.tensor([[IGNORE_INDEX, 3, 1, 6, 2], [IGNORE_INDEX, IGNORE_INDEX, 5, 0, -100]])
    kinds = torch.tensor([[0, 0, OPERATION, OPERATION, 0], [0, 0, 0, OPERATION, 0]])
    return logits, labels, kinds


def each_loss(logits, labels):
    """By the definition: (row, position) -> -log p."""
    logs = logits.log_softmax(-1)
    return {
        (row, t): -logs[row, t - 1, labels[row, t]].item()
        for row in range(2)
        for t in range(1, 5)
        if labels[row, t] != IGNORE_INDEX
    }


def test_the_mean_over_supervised_tokens(batch):
    logits, labels, _ = batch
    known = each_loss(logits, labels)
    assert len(known) == 6
    loss = compute_token_loss({"logits": logits}, labels)
    assert loss.item() == pytest.approx(sum(known.values()) / 6, abs=1e-6)
    # Of a step with more micro-batches: its share of the whole.
    part = compute_token_loss({"logits": logits}, labels, torch.tensor(10))
    assert part.item() == pytest.approx(sum(known.values()) / 10, abs=1e-6)


def test_logits_of_the_supervised_tokens_alone_give_the_same_number(batch):
    logits, labels, kinds = batch
    kept = logits[:, :-1][labels[:, 1:] != IGNORE_INDEX]
    for words in ({}, {"kinds": kinds, "operation_weight": 2.5}):
        whole = compute_token_loss({"logits": logits}, labels, **words)
        assert torch.equal(compute_token_loss({"logits": kept}, labels, **words), whole)


def test_tokens_of_a_call_weigh_what_they_are_said_to(batch):
    logits, labels, kinds = batch
    known = each_loss(logits, labels)
    in_call = {(0, 2), (0, 3), (1, 3)}
    expected = sum((2.5 if at in in_call else 1) * loss for at, loss in known.items()) / 6
    loss = compute_token_loss({"logits": logits}, labels, kinds=kinds, operation_weight=2.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert abs(expected - sum(known.values()) / 6) > 0.1


def test_a_weight_of_one_is_no_weight_to_the_bit(batch):
    logits, labels, kinds = batch
    weighed = compute_token_loss({"logits": logits}, labels, kinds=kinds, operation_weight=1.0)
    assert torch.equal(weighed, compute_token_loss({"logits": logits}, labels))
