"""Teacher-forced evaluation: loss and accuracies of each token after the right earlier tokens."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.data.encode import IGNORE_INDEX, Encoder
from pixelis.data.example import Example
from pixelis.errors import DataError
from pixelis.evaluation.batches import Batch, Batches, by_length, needed_logits


@dataclass(frozen=True)
class Stratum:
    """The results of one difficulty's validation examples, teacher-forced.

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


# A function that computes each batch, in this or another process, and yields batch and result.
Shard = Callable[[Sequence[Any], Callable[[Any], Any]], Iterable[tuple[Any, Any]]]


def in_this_process(
    batches: Sequence[Any], compute: Callable[[Any], Any]
) -> Iterable[tuple[Any, Any]]:
    """Compute each batch in this process; a training in several processes shards them instead."""
    return ((batch, compute(batch)) for batch in batches)


@dataclass(frozen=True)
class Tally:
    """The counts of one example, teacher-forced.

    Attributes:
        tokens: supervised tokens.
        right: supervised tokens whose most likely prediction is right.
        loss: sum of cross-entropies, in nats.
        answered: whether every token of the last turn is right.
    """

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
        shard: Shard = in_this_process,
    ) -> None:
        """Choose at most `samples_per_difficulty` examples of each difficulty by the seed.

        Raises:
            DataError: when a difficulty's examples hold no supervised token.
        """
        self.difficulties = tuple(difficulties)
        self.shard = shard
        self.keys: list[Key] = []
        for difficulty in difficulties:
            size, excluded = dataset.sizes[difficulty], dataset.excluded
            indices = [i for i in range(size) if (difficulty, i) not in excluded]
            random.Random(f"validation:{seed}:{difficulty}").shuffle(indices)
            self.keys += [(difficulty, i) for i in sorted(indices[:samples_per_difficulty])]
        encoded = {key: dataset[key] for key in self.keys}
        for difficulty in difficulties:
            chosen = [item for key, item in encoded.items() if key[0] == difficulty]
            if not any(label != IGNORE_INDEX for item in chosen for label in item.labels):
                raise DataError(
                    f"the validation split of {difficulty} has no supervised token in the "
                    f"{len(chosen)} examples that its stratum is measured on (at most "
                    f"curriculum.eval_samples_per_difficulty={samples_per_difficulty}): at least "
                    "one must have words of the assistant to predict"
                )
        self.batches = Batches(dataset, by_length(dataset, self.keys), batch_size)

    @torch.inference_mode()
    def __call__(self, model: Any) -> dict[str, Stratum]:
        """Evaluate the model on every difficulty; restore its training mode."""
        was_training = model.training
        model.eval()
        tallies: dict[str, list[Tally]] = {difficulty: [] for difficulty in self.difficulties}
        for key, tally in measure(model, self.batches, self.shard):
            tallies[key[0]].append(tally)
        model.train(was_training)
        return {name: _stratum(tallies[name]) for name in self.difficulties}


def measure(model: Any, batches: Batches, shard: Shard) -> Iterator[tuple[Key, Tally]]:
    """Yield every example with its tally; a batch is collated by the process that computes it."""

    def compute(index: int) -> list[Tally]:
        return _tallies(model, batches[index])

    for index, tallies in shard(range(len(batches)), compute):
        yield from zip(batches.keys_of(index), tallies, strict=True)


@torch.inference_mode()
def compute_losses(
    model: Any, batches: Batches, *, shard: Shard = in_this_process
) -> dict[str, dict[int, float]]:
    """Return the mean loss per supervised token of examples: difficulty -> index -> nats.

    The model's training mode is restored. The strategy `self_paced` uses these losses.
    """
    was_training = model.training
    model.eval()
    losses: dict[str, dict[int, float]] = {difficulty: {} for difficulty, _ in batches.keys}
    for (name, index), tally in measure(model, batches, shard):
        losses[name][index] = tally.loss / max(1, tally.tokens)
    model.train(was_training)
    return losses


class _ExampleDataset(CurriculumDataset):
    """A dataset of examples in memory, by their index."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder) -> None:
        super().__init__({}, encoder)
        self.examples = examples

    def example(self, key: Key) -> Example:
        return self.examples[key[1]]


@torch.inference_mode()
def tally_examples(
    model: Any, encoder: Encoder, examples: Sequence[Example], *, batch_size: int
) -> list[Tally]:
    """Measure examples in one forward pass each; restore the model's training mode.

    Raises:
        DataError: when an example cannot be encoded, naming the example.
    """
    dataset = _ExampleDataset(examples, encoder)
    keys = by_length(dataset, [(example.difficulty, i) for i, example in enumerate(examples)])
    batches = Batches(dataset, keys, batch_size, max_kept_bytes=0)
    was_training = model.training
    model.eval()
    tallies = {key[1]: tally for key, tally in measure(model, batches, in_this_process)}
    model.train(was_training)
    return [tallies[index] for index in range(len(examples))]


def _tallies(model: Any, batch: Batch) -> list[Tally]:
    logits = needed_logits(model, batch)
    needed, labels = batch.needed.to(logits.device), batch.labels.to(logits.device)
    return [
        _tally(row, needed, target, start)
        for row, target, start in zip(logits, labels, batch.answer_starts, strict=True)
    ]


def _tally(
    logits: torch.Tensor, needed: torch.Tensor, labels: torch.Tensor, answer_start: int
) -> Tally:
    """Tally one example: logits (N, V) at the N positions `needed`, labels (T,)."""
    targets = labels[1:][needed]  # position t predicts token t + 1
    supervised = (targets != IGNORE_INDEX).nonzero().squeeze(1)
    kept = logits[supervised].float()
    wanted = targets[supervised]
    right = kept.argmax(-1) == wanted
    last = needed[supervised] + 1 >= answer_start
    loss = nn.functional.cross_entropy(kept, wanted, reduction="sum").item()
    return Tally(len(wanted), int(right.sum()), loss, bool(right[last].all()))


def _stratum(tallies: Sequence[Tally]) -> Stratum:
    tokens = sum(t.tokens for t in tallies)
    return Stratum(
        num_examples=len(tallies),
        num_tokens=tokens,
        loss=sum(t.loss for t in tallies) / tokens,
        token_accuracy=sum(t.right for t in tallies) / tokens,
        answer_accuracy=sum(t.answered for t in tallies) / len(tallies),
    )
