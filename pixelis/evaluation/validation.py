"""Strata in one pass: the validation split's performance for every difficulty at once."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.data.encode import IGNORE_INDEX, Encoded
from pixelis.errors import DataError


@dataclass(frozen=True)
class Stratum:
    """What one difficulty's validation examples gave, teacher-forced.

    Attributes:
        num_examples: validation examples.
        num_tokens: supervised tokens.
        loss: mean cross-entropy per supervised token, in nats.
        token_accuracy: share of supervised tokens whose most likely prediction is right, in [0, 1].
        answer_accuracy: share of examples with every token of the last turn right, in [0, 1].
    """

    num_examples: int
    num_tokens: int
    loss: float
    token_accuracy: float
    answer_accuracy: float

    @property
    def likelihood(self) -> float:
        """exp(-loss): the geometric mean probability of a supervised token, in [0, 1]."""
        return math.exp(-self.loss)


# Computes each batch, here or in another process, and gives it back with its result, in order.
Deal = Callable[[Sequence[Any], Callable[[Any], Any]], Iterable[tuple[Any, Any]]]


def in_this_process(
    batches: Sequence[Any], compute: Callable[[Any], Any]
) -> Iterable[tuple[Any, Any]]:
    """Each batch with its result; a training in several processes deals them out instead."""
    return ((batch, compute(batch)) for batch in batches)


@dataclass(frozen=True)
class _Tally:
    tokens: int
    right: int
    loss: float
    answered: bool


class Validation:
    """A fixed, stratified subset of the validation split, encoded once and sorted by length."""

    def __init__(
        self,
        dataset: CurriculumDataset,
        difficulties: Sequence[str],
        *,
        samples_per_difficulty: int,
        batch_size: int,
        seed: int,
        deal: Deal = in_this_process,
    ) -> None:
        """Choose the subset by the seed; fewer examples where there are fewer.

        Raises:
            DataError: when a difficulty's examples hold no supervised token.
        """
        self.dataset = dataset
        self.difficulties = tuple(difficulties)
        self.batch_size = batch_size
        self.deal = deal
        self.keys: list[Key] = []
        for difficulty in difficulties:
            indices = list(range(dataset.sizes[difficulty]))
            random.Random(f"validation:{seed}:{difficulty}").shuffle(indices)
            self.keys += [(difficulty, i) for i in sorted(indices[:samples_per_difficulty])]
        encoded = {key: dataset[key] for key in self.keys}
        for difficulty in difficulties:
            chosen = [item for key, item in encoded.items() if key[0] == difficulty]
            if not any(label != IGNORE_INDEX for item in chosen for label in item.labels):
                raise DataError(f"the validation split of {difficulty} has no supervised token")
        self.order = sorted(self.keys, key=lambda key: len(encoded[key]))

    @torch.inference_mode()
    def __call__(self, model: Any) -> dict[str, Stratum]:
        """Evaluate the model on every difficulty; its training mode is left as it was."""
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        tallies: dict[str, list[_Tally]] = {difficulty: [] for difficulty in self.difficulties}

        def compute(keys: Sequence[Key]) -> list[_Tally]:
            encoded = [self.dataset[key] for key in keys]
            batch = {k: v.to(device) for k, v in self.dataset.collate(encoded).items()}
            labels = batch.pop("labels")
            logits = model(**batch).logits
            return [_tally(*one) for one in zip(logits, labels, encoded, strict=True)]

        for keys, found in self.deal(_batches(self.order, self.batch_size), compute):
            for key, tally in zip(keys, found, strict=True):
                tallies[key[0]].append(tally)
        model.train(was_training)
        return {name: _stratum(tallies[name]) for name in self.difficulties}


def _batches(keys: Sequence[Key], batch_size: int) -> list[Sequence[Key]]:
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


@torch.inference_mode()
def compute_losses(
    model: Any, dataset: CurriculumDataset, *, batch_size: int, deal: Deal = in_this_process
) -> dict[str, dict[int, float]]:
    """Mean loss per supervised token of every example: difficulty -> index -> nats.

    The model's training mode is left as it was. Length-normalised, as `self_paced` needs it.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    keys = [(name, index) for name, size in dataset.sizes.items() for index in range(size)]
    keys.sort(key=lambda key: len(dataset[key]))
    losses: dict[str, dict[int, float]] = {name: {} for name in dataset.sizes}

    def compute(chosen: Sequence[Key]) -> list[float]:
        encoded = [dataset[key] for key in chosen]
        batch = {k: v.to(device) for k, v in dataset.collate(encoded).items()}
        labels = batch.pop("labels")
        logits = model(**batch).logits
        tallies = (_tally(*one) for one in zip(logits, labels, encoded, strict=True))
        return [tally.loss / max(1, tally.tokens) for tally in tallies]

    for chosen, found in deal(_batches(keys, batch_size), compute):
        for (name, index), loss in zip(chosen, found, strict=True):
            losses[name][index] = loss
    model.train(was_training)
    return losses


def _tally(logits: torch.Tensor, labels: torch.Tensor, item: Encoded) -> _Tally:
    """Count one example: logits (T, V), labels (T,); position t predicts token t + 1."""
    targets = labels[1:]
    positions = (targets != IGNORE_INDEX).nonzero().squeeze(1)
    kept = logits[positions].float()
    wanted = targets[positions]
    right = kept.argmax(-1) == wanted
    last = positions + 1 >= item.answer_start
    loss = nn.functional.cross_entropy(kept, wanted, reduction="sum").item()
    return _Tally(len(wanted), int(right.sum()), loss, bool(right[last].all()))


def _stratum(tallies: Sequence[_Tally]) -> Stratum:
    tokens = sum(t.tokens for t in tallies)
    return Stratum(
        num_examples=len(tallies),
        num_tokens=tokens,
        loss=sum(t.loss for t in tallies) / tokens,
        token_accuracy=sum(t.right for t in tallies) / tokens,
        answer_accuracy=sum(t.answered for t in tallies) / len(tallies),
    )
