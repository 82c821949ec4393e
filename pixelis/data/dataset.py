"""The dataset of one split: encoded examples addressed by difficulty and index."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import datasets
import torch
from PIL import Image
from torch.utils.data import Dataset

from pixelis.data.cache import VisionCache, as_positions
from pixelis.data.encode import Encoded, Encoder, collate, encode_example
from pixelis.data.example import Example
from pixelis.data.store import from_row

Key = tuple[str, int]


class CurriculumDataset(Dataset[Encoded]):
    """Encoded examples addressed by (difficulty, index within that difficulty).

    Tokens come from a cache on disk if there is one. Images are decoded at each access, to save
    memory, and not at all if their vision features are cached.

    Attributes:
        rows: rows by difficulty, from `pixelis.data.store.load_split`.
        features: the cached vision features of every image, or None.
        left_out: difficulty -> number of examples left out by `use_tokens`.
        refused: difficulty -> the reason of each of these whose image the processor refuses.
        excluded: keys that are never drawn (see `exclude`).
    """

    def __init__(self, rows: Mapping[str, Any], encoder: Encoder) -> None:
        """Start without caches."""
        self.rows = dict(rows)
        self.encoder = encoder
        self.features: VisionCache | None = None
        self.left_out: dict[str, int] = {}
        self.refused: dict[str, list[str]] = {}
        self.excluded: frozenset[Key] = frozenset()
        self._tokens: dict[str, datasets.Dataset] = {}
        self._lengths: dict[str, list[int]] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples of each difficulty."""
        return {difficulty: len(rows) for difficulty, rows in self.rows.items()}

    def __len__(self) -> int:
        """Return the number of examples."""
        return sum(self.sizes.values())

    def use_tokens(self, tokens: Mapping[str, datasets.Dataset]) -> dict[str, int]:
        """Read tokens from a cache; leave out examples that are too long or have no tokens.

        Args:
            tokens: the tokens of these rows, from `pixelis.data.cache.open_tokens`.

        Returns:
            The number of examples left out, by difficulty; no example is truncated.
        """
        limit = self.encoder.max_length
        for difficulty, rows in self.rows.items():
            table = tokens[difficulty]
            refusals = table.data.column("refused").to_pylist()
            lengths = table.data.column("input_ids").combine_chunks().value_lengths().to_pylist()
            kept = [
                i
                for i, length in enumerate(lengths)
                if not refusals[i] and (limit is None or length <= limit)
            ]
            self.refused[difficulty] = [reason for reason in refusals if reason]
            self.left_out[difficulty] = len(lengths) - len(kept)
            if self.left_out[difficulty]:
                rows, table = rows.select(kept), table.select(kept)
                lengths = [lengths[i] for i in kept]
            self.rows[difficulty] = rows
            self._tokens[difficulty], self._lengths[difficulty] = table, lengths
        return self.left_out

    def exclude(self, ids: Collection[str]) -> dict[str, int]:
        """Exclude examples from training; all keys stay as they are.

        Args:
            ids: the examples' ids; ids of other splits are ignored.

        Returns:
            The number of remaining examples, by difficulty.
        """
        unwanted = set(ids)
        self.excluded = frozenset(
            (difficulty, index)
            for difficulty, rows in self.rows.items()
            for index, example_id in enumerate(rows["id"] if unwanted else ())
            if example_id in unwanted
        )
        out = Counter(difficulty for difficulty, _ in self.excluded)
        return {difficulty: size - out[difficulty] for difficulty, size in self.sizes.items()}

    @property
    def num_image_tokens(self) -> int:
        """The number of visual tokens of all examples, repeated images included."""
        columns = [table.data.column("input_ids") for table in self._tokens.values()]
        ids = [column.combine_chunks().flatten().to_numpy() for column in columns]
        return sum(int((each == self.encoder.image_token_id).sum()) for each in ids)

    def image_digests(self, key: Key) -> list[str]:
        """Return the SHA-256 of each stored image of an example, in the conversation's order."""
        difficulty, index = key
        return [str(digest) for digest in self._tokens[difficulty][index]["images"]]

    @property
    def distinct_images(self) -> set[str]:
        """The SHA-256 of every stored image of the examples."""
        columns = [table.select_columns("images") for table in self._tokens.values()]
        return {
            str(digest)
            for column in columns
            for digests in column.with_format("arrow")[:]["images"].to_pylist()
            for digest in digests
        }

    def all_keys(self) -> Iterator[Key]:
        """Yield every key, difficulty by difficulty."""
        return ((name, i) for name, size in self.sizes.items() for i in range(size))

    def example(self, key: Key) -> Example:
        """Return the example at a key."""
        difficulty, index = key
        return from_row(self.rows[difficulty][index])

    def length(self, key: Key) -> int:
        """Return the number of tokens of an example."""
        difficulty, index = key
        return self._lengths[difficulty][index] if self._lengths else len(self[key])

    def __getitem__(self, key: Key) -> Encoded:
        """Return the encoded example at a key.

        Raises:
            DataError: when it is longer than the encoder's max_length, naming it.
        """
        difficulty, index = key
        if not self._tokens:
            return encode_example(self.example(key), self.encoder)
        row = self._tokens[difficulty][index]
        images: tuple[Image.Image, ...] = ()
        features = None
        if self.features is None:
            images = example_images(self.example(key))
        elif len(row["images"]):
            features = torch.cat([self.features[str(digest)] for digest in row["images"]])
        return Encoded(
            row["input_ids"],
            row["labels"],
            int(row["answer_start"]),
            images,
            row["kinds"],
            as_positions(row["positions"]),
            features,
        )

    def collate(self, batch: list[Encoded]) -> dict[str, torch.Tensor]:
        """Pad a batch and process its images (see `pixelis.data.encode.collate`)."""
        return collate(batch, self.encoder)


def example_images(example: Example) -> tuple[Image.Image, ...]:
    """Return every image of an example, in the order of the conversation."""
    step_images = [step.image for step in example.trajectory if step.image is not None]
    return (*example.images, *step_images)
