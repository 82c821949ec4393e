"""CurriculumDataset: the examples of one split by (difficulty, index), encoded when first read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from pixelis.data.chat import example_messages
from pixelis.data.encode import Encoded, Encoder, collate
from pixelis.data.example import Example
from pixelis.data.store import from_row
from pixelis.errors import DataError

Key = tuple[str, int]


class CurriculumDataset(Dataset[Encoded]):
    """Encoded examples addressed by (difficulty, index within that difficulty).

    Token ids are kept after the first reading; images are decoded again each time, because they
    are what memory goes to.
    """

    def __init__(self, rows: Mapping[str, Any], encoder: Encoder) -> None:
        """Take the rows of each difficulty (`pixelis.data.store.load_split`) and an encoder."""
        self.rows = dict(rows)
        self.encoder = encoder
        self._encoded: dict[Key, Encoded] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples each difficulty has."""
        return {difficulty: len(rows) for difficulty, rows in self.rows.items()}

    def __len__(self) -> int:
        """How many examples there are."""
        return sum(self.sizes.values())

    def example(self, key: Key) -> Example:
        """The example at a key."""
        difficulty, index = key
        return from_row(self.rows[difficulty][index])

    def __getitem__(self, key: Key) -> Encoded:
        """The encoded example at a key.

        Raises:
            DataError: when it is longer than the encoder's max_length, naming it.
        """
        example = self.example(key)
        images = [*example.images, *(s.image for s in example.trajectory if s.image is not None)]
        known = self._encoded.get(key)
        if known is None:
            try:
                known = self.encoder.encode(example_messages(example))
            except DataError as error:
                raise DataError(
                    f"example {example.id} ({key[0]}): {error}; raise training.max_length"
                ) from error
            self._encoded[key] = replace(known, images=())
        return replace(known, images=tuple(images))

    def collate(self, batch: list[Encoded]) -> dict[str, torch.Tensor]:
        """Pad and process a batch (`pixelis.data.encode.collate`)."""
        return collate(batch, self.encoder)
