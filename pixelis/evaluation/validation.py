"""Teacher-forced evaluation: loss and accuracies of each token after the right earlier tokens.

Batches are collated once for repeated evaluations, and logits computed only where they are needed.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder
from pixelis.data.example import Example
from pixelis.errors import DataError
from pixelis.models.forward import model_inputs
from pixelis.models.load import best_device, load_model, load_processor

# Limit of the collated batches in memory, with pixels; further batches are collated each time.
MAX_KEPT_BYTES = 2**30
MAX_LENGTH = 4096  # tokens of an example whose answer's loss is computed; longer ones: infinite
UNREADABLE = float("inf")

# A function that computes each batch, in this or another process, and yields batch and result.
Shard = Callable[[Sequence[Any], Callable[[Any], Any]], Iterable[tuple[Any, Any]]]


def in_this_process(
    batches: Sequence[Any], compute: Callable[[Any], Any]
) -> Iterable[tuple[Any, Any]]:
    """Compute each batch in this process; a training in several processes shards them instead."""
    return ((batch, compute(batch)) for batch in batches)


@dataclass(frozen=True)
class Tally:
    """The counts of one example, teacher-forced."""

    tokens: int  # supervised
    right: int  # supervised tokens whose most likely prediction is right
    loss: float  # sum of cross-entropies, in nats
    answered: bool  # whether every token of the last turn is right
    answer_loss: float  # mean cross-entropy per token of the last turn, in nats

    def performance(self, metric: str) -> float:
        """Return the performance of this example alone, in [0, 1], by a metric of the strata."""
        if metric == "token_accuracy":
            return self.right / self.tokens
        if metric == "answer_accuracy":
            return float(self.answered)
        return math.exp(-self.loss / self.tokens if metric == "likelihood" else -self.answer_loss)


@dataclass(frozen=True)
class Stratum:
    """The results of one difficulty's validation examples, teacher-forced."""

    num_examples: int
    num_tokens: int  # supervised
    loss: float  # mean cross-entropy per supervised token, in nats
    token_accuracy: float  # share of supervised tokens whose most likely prediction is right
    answer_accuracy: float  # share of examples with every token of the last turn right
    # Of the examples with a supervised token, in one order at every evaluation.
    tallies: tuple[Tally, ...] = field(default=(), compare=False, repr=False)

    @property
    def likelihood(self) -> float:
        """exp(-loss): the geometric mean probability of a supervised token, in [0, 1]."""
        return math.exp(-self.loss)

    @property
    def answer_likelihood(self) -> float:
        """The mean over examples of exp(-mean loss per token of the last turn), in [0, 1]."""
        each = self.performances("answer_likelihood")
        return sum(each) / max(1, len(each))

    def performances(self, metric: str) -> list[float]:
        """Return the performance of each example alone, in one order at every evaluation."""
        return [tally.performance(metric) for tally in self.tallies]


@dataclass(frozen=True)
class Batch:
    """A collated batch without its labels."""

    keys: tuple[Key, ...]  # keys of the examples, row by row
    # Position of the first token of each example's last supervised turn.
    answer_starts: tuple[int, ...]
    inputs: dict[str, torch.Tensor]  # the arguments of the model's forward pass
    labels: torch.Tensor  # (B, T)
    # Ascending positions from which at least one row predicts a supervised token.
    needed: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors in bytes."""
        tensors = (*self.inputs.values(), self.labels, self.needed)
        return sum(tensor.nbytes for tensor in tensors)


class Batches:
    """Fixed batches of fixed examples, sorted by length, kept in memory up to a limit."""

    def __init__(
        self,
        dataset: CurriculumDataset,
        keys: Iterable[Key],
        batch_size: int,
        *,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        """Divide keys into batches of similar lengths; examples are read when used."""
        self.dataset = dataset
        self.keys = tuple(sorted(keys, key=dataset.length))
        self.batch_size = batch_size
        self.max_kept_bytes = max_kept_bytes
        self.kept_bytes = 0
        self._kept: dict[int, Batch] = {}

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.keys) // self.batch_size)

    def keys_of(self, index: int) -> tuple[Key, ...]:
        """Return the keys of the batch at an index."""
        return self.keys[index * self.batch_size : (index + 1) * self.batch_size]

    def __getitem__(self, index: int) -> Batch:
        """Return the batch at an index, from memory or collated now."""
        if index in self._kept:
            return self._kept[index]
        keys = self.keys_of(index)
        encoded = [self.dataset[key] for key in keys]
        inputs = self.dataset.collate(encoded)
        labels = inputs.pop("labels")
        # Position t predicts token t + 1.
        needed = (labels[:, 1:] != IGNORE_INDEX).any(0).nonzero().squeeze(1)
        starts = tuple(item.answer_start for item in encoded)
        batch = Batch(keys, starts, inputs, labels, needed)
        if self.kept_bytes + batch.num_bytes <= self.max_kept_bytes:
            self._kept[index] = batch
            self.kept_bytes += batch.num_bytes
        return batch


class Validation:
    """A fixed, stratified subset of a dataset, encoded once and sorted by length."""

    def __init__(
        self,
        dataset: CurriculumDataset,
        difficulties: Sequence[str],
        *,
        samples_per_difficulty: int,
        batch_size: int,
        seed: int,
        shard: Shard = in_this_process,
        needs_all: bool = True,
    ) -> None:
        """Choose at most `samples_per_difficulty` examples of each difficulty by the seed.

        An excluded example is replaced; the others stay. A difficulty whose examples hold no
        supervised token is an error, or left out where not all are needed.

        Raises:
            DataError: naming such a difficulty.
        """
        self.difficulties: list[str] = []
        self.shard = shard
        self.keys: list[Key] = []
        for difficulty in difficulties:
            indices = list(range(dataset.sizes[difficulty]))
            random.Random(f"validation:{seed}:{difficulty}").shuffle(indices)
            left = [(difficulty, i) for i in indices if (difficulty, i) not in dataset.excluded]
            keys = sorted(left[:samples_per_difficulty])
            if any(label != IGNORE_INDEX for key in keys for label in dataset[key].labels):
                self.difficulties.append(difficulty)
                self.keys += keys
            elif needs_all:
                raise DataError(
                    f"the validation examples of {difficulty} have no supervised token in the "
                    f"{len(keys)} that its stratum is measured on (at most "
                    f"curriculum.eval_samples_per_difficulty={samples_per_difficulty}): at least "
                    "one must have words of the assistant to predict"
                )
        self.batches = Batches(dataset, self.keys, batch_size)

    def __call__(self, model: Any) -> dict[str, Stratum]:
        """Evaluate the model on every difficulty; restore its training mode."""
        tallies: dict[str, list[Tally]] = {difficulty: [] for difficulty in self.difficulties}
        for key, tally in measure(model, self.batches, self.shard):
            tallies[key[0]].append(tally)
        return {name: _stratum(tallies[name]) for name in self.difficulties}


def compute_losses(
    model: Any, batches: Batches, *, shard: Shard = in_this_process
) -> dict[str, dict[int, float]]:
    """Return the mean loss per supervised token of examples: difficulty -> index -> nats.

    The model's training mode is restored. The strategy `self_paced` uses these losses.
    """
    losses: dict[str, dict[int, float]] = {difficulty: {} for difficulty, _ in batches.keys}
    for (name, index), tally in measure(model, batches, shard):
        losses[name][index] = tally.loss / max(1, tally.tokens)
    return losses


def tally_examples(
    model: Any, encoder: Encoder, examples: Sequence[Example], *, batch_size: int
) -> list[Tally]:
    """Measure examples in one forward pass each; restore the model's training mode.

    Raises:
        DataError: when an example cannot be encoded, naming the example.
    """
    dataset = _ExampleDataset(examples, encoder)
    batches = Batches(dataset, dataset.all_keys(), batch_size, max_kept_bytes=0)
    tallies = {key[1]: tally for key, tally in measure(model, batches)}
    return [tallies[index] for index in range(len(examples))]


def build_answer_losses(model_name: str) -> Callable[[Sequence[Example]], list[float]]:
    """Return `answer_losses` of a model, for the difficulty scorer `model` and the correlation.

    The first call loads the model, in float32, because bfloat16 is coarse, and slow on a CPU.

    Raises:
        CheckpointError: at the first call, when the model cannot be loaded.
    """

    @lru_cache(maxsize=1)
    def load() -> tuple[Any, Encoder]:
        encoder = Encoder(load_processor(model_name), MAX_LENGTH)
        model: Any = load_model(model_name, torch_dtype="float32")
        return model.to(best_device()), encoder

    return lambda examples: answer_losses(*load(), examples)


def answer_losses(
    model: Any, encoder: Encoder, examples: Sequence[Example], *, batch_size: int = 8
) -> list[float]:
    """Return the mean loss per token of each example's final turn, teacher-forced, in nats.

    The final turn holds conclusion and answer, not the trajectory. The loss of an example that
    cannot be encoded (too long, a reserved character, a very thin image) is infinite.
    """
    dataset = _ExampleDataset(examples, encoder)
    losses = [UNREADABLE] * len(examples)
    keys = [key for key in dataset.all_keys() if dataset.is_readable(key)]
    batches = Batches(dataset, keys, batch_size, max_kept_bytes=0)
    for (_, index), tally in measure(model, batches):
        losses[index] = tally.answer_loss
    return losses


class _ExampleDataset(CurriculumDataset):
    """A dataset of examples in memory, by their index."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder) -> None:
        super().__init__({"": examples}, encoder)
        self._encoded: dict[Key, Encoded] = {}

    def __getitem__(self, key: Key) -> Encoded:
        if key not in self._encoded:  # asked for its length, to sort, and for its batch
            self._encoded[key] = super().__getitem__(key)
        return self._encoded[key]

    def example(self, key: Key) -> Example:
        example: Example = self.rows[key[0]][key[1]]
        return example

    def is_readable(self, key: Key) -> bool:
        try:
            return len(self[key]) > 0
        except DataError:
            return False


def measure(
    model: Any, batches: Batches, shard: Shard = in_this_process
) -> Iterator[tuple[Key, Tally]]:
    """Yield every example with its tally; a batch is collated by the process that computes it.

    The model is in evaluation mode meanwhile.
    """

    @torch.inference_mode()
    def compute(index: int) -> list[Tally]:
        batch = batches[index]
        logits = needed_logits(model, batch)
        needed, labels = batch.needed.to(logits.device), batch.labels.to(logits.device)
        return [
            _tally(row, needed, target, start)
            for row, target, start in zip(logits, labels, batch.answer_starts, strict=True)
        ]

    was_training = model.training
    model.eval()
    for index, tallies in shard(range(len(batches)), compute):
        yield from zip(batches.keys_of(index), tallies, strict=True)
    model.train(was_training)


def needed_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the model's logits at `batch.needed`, (B, len(needed), V).

    Its head computes no other logits, which would need most of the memory with a vocabulary of
    150,000. The results are equal to the bit.
    """
    device = next(model.parameters()).device
    inputs = model_inputs({name: value.to(device) for name, value in batch.inputs.items()})
    logits: torch.Tensor = model(**inputs, logits_to_keep=batch.needed.to(device)).logits
    return logits


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
    loss = cross_entropy(kept, wanted, reduction="sum").item()
    answer_loss = cross_entropy(kept[last], wanted[last]).item()
    return Tally(len(wanted), int(right.sum()), loss, bool(right[last].all()), answer_loss)


def _stratum(tallies: Sequence[Tally]) -> Stratum:
    tokens = sum(t.tokens for t in tallies)
    return Stratum(
        num_examples=len(tallies),
        num_tokens=tokens,
        loss=sum(t.loss for t in tallies) / tokens,
        token_accuracy=sum(t.right for t in tallies) / tokens,
        answer_accuracy=sum(t.answered for t in tallies) / len(tallies),
        tallies=tuple(t for t in tallies if t.tokens),
    )
