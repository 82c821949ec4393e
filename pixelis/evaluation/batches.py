"""Batches for repeated evaluation, collated once, with logits only at the needed positions."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.data.encode import IGNORE_INDEX
from pixelis.models.forward import model_inputs

# Limit of the collated batches in memory, with pixels; further batches are collated each time.
MAX_KEPT_BYTES = 2**30


@dataclass(frozen=True)
class Batch:
    """A collated batch without its labels.

    Attributes:
        keys: keys of the examples, row by row.
        answer_starts: position of the first token of each example's last supervised turn.
        inputs: the arguments of the model's forward pass.
        labels: (B, T).
        needed: ascending positions from which at least one row predicts a supervised token.
    """

    keys: tuple[Key, ...]
    answer_starts: tuple[int, ...]
    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    needed: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors in bytes."""
        tensors = (*self.inputs.values(), self.labels, self.needed)
        return sum(tensor.nbytes for tensor in tensors)


class Batches:
    """Fixed batches of fixed examples, kept in memory up to a limit."""

    def __init__(
        self,
        dataset: CurriculumDataset,
        keys: Sequence[Key],
        batch_size: int,
        *,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        """Divide keys, ideally sorted by length, into batches; examples are read when used."""
        self.dataset = dataset
        self.keys = tuple(keys)
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

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over all batches in order."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Batch:
        """Return the batch at an index, from memory or collated now."""
        batch = self._kept.get(index)
        if batch is None:
            batch = self._collate(self.keys_of(index))
            if self.kept_bytes + batch.num_bytes <= self.max_kept_bytes:
                self._kept[index] = batch
                self.kept_bytes += batch.num_bytes
        return batch

    def _collate(self, keys: Sequence[Key]) -> Batch:
        encoded = [self.dataset[key] for key in keys]
        inputs = self.dataset.collate(encoded)
        labels = inputs.pop("labels")
        # Position t predicts token t + 1.
        needed = (labels[:, 1:] != IGNORE_INDEX).any(0).nonzero().squeeze(1)
        starts = tuple(item.answer_start for item in encoded)
        return Batch(tuple(keys), starts, inputs, labels, needed)


def by_length(dataset: CurriculumDataset, keys: Sequence[Key]) -> list[Key]:
    """Sort keys by the examples' length, so that batches need little padding."""
    return sorted(keys, key=dataset.length)


def needed_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the model's logits at `batch.needed`, (B, len(needed), V).

    If the model takes `logits_to_keep`, its head computes no other logits, which would need most of
    the memory with a vocabulary of 150,000. The results are equal to the bit.
    """
    device = next(model.parameters()).device
    inputs = model_inputs({name: value.to(device) for name, value in batch.inputs.items()})
    needed = batch.needed.to(device)
    logits: torch.Tensor
    if _takes_logits_to_keep(model):
        logits = model(**inputs, logits_to_keep=needed).logits
    else:
        logits = model(**inputs).logits[:, needed]
    return logits


def _takes_logits_to_keep(model: Any) -> bool:
    """Return whether the model inside adapter and wrappers has a parameter `logits_to_keep`."""
    inner = getattr(model, "module", model)  # inside DistributedDataParallel
    if hasattr(inner, "get_base_model"):  # inside an adapter
        inner = inner.get_base_model()
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
