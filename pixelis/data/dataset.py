"""CurriculumDataset: the examples of one split by (difficulty, index), encoded when first read."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from pixelis.data.cache import VisionCache, as_positions
from pixelis.data.encode import Encoded, Encoder, collate, encode_example
from pixelis.data.example import Example
from pixelis.data.store import from_row
from pixelis.errors import DataError

Key = tuple[str, int]


class CurriculumDataset(Dataset[Encoded]):
    """Encoded examples addressed by (difficulty, index within that difficulty).

    Tokens come from a cache on disk where there is one, else they are kept after the first reading;
    images are decoded again each time, because they are what memory goes to, and not at all where
    the features of all of them are known.
    """

    def __init__(self, rows: Mapping[str, Any], encoder: Encoder) -> None:
        """Take the rows of each difficulty (`pixelis.data.store.load_split`) and an encoder."""
        self.rows = dict(rows)
        self.encoder = encoder
        self.features: VisionCache | None = None
        self.left_out: dict[str, int] = {}
        self._tokens: dict[str, Any] | None = None
        self._encoded: dict[Key, Encoded] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples each difficulty has."""
        return {difficulty: len(rows) for difficulty, rows in self.rows.items()}

    def __len__(self) -> int:
        """How many examples there are."""
        return sum(self.sizes.values())

    def use_tokens(self, tokens: Mapping[str, Any]) -> dict[str, int]:
        """Read tokens from a cache, and leave out what is longer than the encoder's max_length.

        Args:
            tokens: of `pixelis.data.cache.open_tokens`, for these rows.

        Returns:
            how many examples of each difficulty are left out; none is cut.
        """
        limit = self.encoder.max_length
        self._tokens, self._encoded = {}, {}
        for difficulty, rows in self.rows.items():
            found = tokens[difficulty]
            lengths = found.data.column("input_ids").combine_chunks().value_lengths().to_pylist()
            kept = [i for i, n in enumerate(lengths) if limit is None or n <= limit]
            self.left_out[difficulty] = len(lengths) - len(kept)
            if self.left_out[difficulty]:
                rows, found = rows.select(kept), found.select(kept)
                lengths = [lengths[i] for i in kept]
            self.rows[difficulty], self._tokens[difficulty] = rows, (found, lengths)
        return self.left_out

    @property
    def num_image_tokens(self) -> int:
        """Visual tokens of all examples, images that come again included."""
        assert self._tokens is not None
        columns = [found.data.column("input_ids") for found, _ in self._tokens.values()]
        ids = [column.combine_chunks().flatten().to_numpy() for column in columns]
        return sum(int((each == self.encoder.image_token_id).sum()) for each in ids)

    def image_digests(self, key: Key) -> list[str]:
        """The SHA-256 of each stored image of an example, in the conversation's order."""
        assert self._tokens is not None
        return [str(digest) for digest in self._tokens[key[0]][0][key[1]]["images"]]

    @property
    def distinct_images(self) -> set[str]:
        """The SHA-256 of every stored image of the examples that are not left out."""
        assert self._tokens is not None
        columns = [found.select_columns("images") for found, _ in self._tokens.values()]
        return {
            str(digest)
            for column in columns
            for digests in column.with_format("arrow")[:]["images"].to_pylist()
            for digest in digests
        }

    def all_keys(self) -> Iterator[Key]:
        """Every key, difficulty by difficulty."""
        return ((name, i) for name, size in self.sizes.items() for i in range(size))

    def example(self, key: Key) -> Example:
        """The example at a key."""
        difficulty, index = key
        return from_row(self.rows[difficulty][index])

    def length(self, key: Key) -> int:
        """How many tokens an example has; without decoding its images where it can be."""
        if self._tokens is None:
            return len(self[key])
        _, lengths = self._tokens[key[0]]
        return int(lengths[key[1]])

    def __getitem__(self, key: Key) -> Encoded:
        """The encoded example at a key.

        Raises:
            DataError: when it is longer than the encoder's max_length, naming it.
        """
        if self._tokens is not None:
            return self._from_cache(key)
        example = self.example(key)
        known = self._encoded.get(key)
        if known is None:
            try:
                known = encode_example(example, self.encoder)
            except DataError as error:
                raise DataError(
                    f"example {example.id} ({key[0]}): {error}; raise training.max_length"
                ) from error
            self._encoded[key] = replace(known, images=())
        return replace(known, images=tuple(_images(example)))

    def _from_cache(self, key: Key) -> Encoded:
        assert self._tokens is not None
        row = self._tokens[key[0]][0][key[1]]
        features, digests = None, [str(digest) for digest in row["images"]]
        if self.features is not None and digests:
            features = torch.cat([self.features[digest] for digest in digests])
        return Encoded(
            row["input_ids"],
            row["labels"],
            int(row["answer_start"]),
            () if self.features is not None else tuple(_images(self.example(key))),
            row["kinds"],
            as_positions(row["positions"]),
            features,
        )

    def collate(self, batch: list[Encoded]) -> dict[str, torch.Tensor]:
        """Pad and process a batch (`pixelis.data.encode.collate`)."""
        return collate(batch, self.encoder)


def _images(example: Example) -> list[Any]:
    seen = [step.image for step in example.trajectory if step.image is not None]
    return [*example.images, *seen]
