"""A key and value cache for several conversations of different lengths."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache

# The cache's length grows by this many columns.
COLUMNS = 128


class SlotCache(Cache):
    """Keys and values of several conversations, each with its own length.

    A slot's tokens are in columns 0 to length - 1. Later columns hold padding, which the mask hides
    and the next tokens overwrite.
    """

    def __init__(self, num_slots: int) -> None:
        """Create an empty cache; the first forward pass allocates its tensors."""
        super().__init__(layers=[])
        self.num_slots = num_slots
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []

    def select(self, slots: torch.Tensor, columns: torch.Tensor) -> None:
        """Set where the next forward pass writes: slots (n,), ascending, and columns (n, Q)."""
        self._rows = slots
        self._target = slots[:, None], columns
        self._end = int(columns.max()) + 1
        first, last = int(slots[0]), int(slots[-1])
        # Adjacent rows are read in place; others are copied together.
        self._side_by_side = slice(first, last + 1) if last - first + 1 == len(slots) else None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's new states (n, heads, Q, width) and return all states of these slots."""
        return (
            self._store(self._keys, key_states, layer_idx),
            self._store(self._values, value_states, layer_idx),
        )

    def _store(self, layers: list[torch.Tensor], new: torch.Tensor, layer: int) -> torch.Tensor:
        if layer == len(layers):
            layers.append(new.new_zeros(self.num_slots, new.shape[1], 0, new.shape[3]))
        kept = layers[layer]
        if kept.shape[2] < self._end:
            # Zeros, because a masked NaN would still make the sum over the columns NaN.
            missing = -(-(self._end - kept.shape[2]) // COLUMNS) * COLUMNS
            grown = kept.new_zeros(*kept.shape[:2], missing, kept.shape[3])
            kept = layers[layer] = torch.cat([kept, grown], dim=2)
        slots, columns = self._target
        kept[slots, :, columns] = new.transpose(1, 2)
        if self._side_by_side is not None:
            return kept[self._side_by_side, :, : self._end]
        return kept[self._rows, :, : self._end]

    def copy_states(self, slot: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Copy a slot's first columns: keys and values (heads, length, width) by layer."""
        return [
            (keys[slot, :, :length].clone(), values[slot, :, :length].clone())
            for keys, values in zip(self._keys, self._values, strict=True)
        ]

    def write_states(self, slot: int, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Write copied states to the first columns of a slot."""
        for kept, new in zip(self._keys, (keys for keys, _ in states), strict=True):
            kept[slot, :, : new.shape[1]] = new
        for kept, new in zip(self._values, (values for _, values in states), strict=True):
            kept[slot, :, : new.shape[1]] = new
