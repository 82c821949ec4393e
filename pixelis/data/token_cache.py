"""Every example of a split tokenised once, with its M-RoPE positions: an Arrow table on disk."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray

from pixelis.data.cache import build_once, cache_key
from pixelis.data.chat import system_prompt
from pixelis.data.encode import Encoder, encode_example
from pixelis.data.store import difficulty_file, from_row
from pixelis.errors import DataError

# (3, T) positions of one example's tokens, from its ids and the grids of its images (N, 3).
Positions = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Changed when the same text would be encoded in another way.
VERSION = 2

FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "answer_start": datasets.Value("int32"),
        "positions": datasets.List(datasets.Value("int32")),
        "images": datasets.List(datasets.Value("string")),
        "kinds": datasets.List(datasets.Value("int8")),
    }
)


def tokens_key(encoder: Encoder, digests: Mapping[str, str], base: Mapping[str, Any]) -> str:
    """What the tokens depend on: the data, the tokenizer, the template, the images' sizes.

    Args:
        encoder: of the processor.
        digests: file name -> SHA-256 of the data.
        base: what the positions depend on: the model's configuration.
    """
    tokenizer = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return cache_key(
        {
            "version": VERSION,
            "data": dict(digests),
            "tokenizer": backend.to_str() if backend else sorted(tokenizer.get_vocab().items()),
            "special": [tokenizer.eos_token_id, tokenizer.pad_token_id, encoder.image_token_id],
            "template": encoder.processor.chat_template,
            "images": encoder.image_processor.to_dict(),
            "prompt": system_prompt(),
            "base": dict(base),
        }
    )


def open_tokens(
    place: Path,
    rows: Mapping[str, Any],
    encoder: Encoder,
    positions: Positions | None,
    progress: Callable[[int], None],
) -> dict[str, datasets.Dataset]:
    """The tokens of one split by difficulty, memory-mapped; made where they are not there.

    Args:
        place: the cache of this split.
        rows: of the split, by difficulty.
        encoder: without a bound on the length.
        positions: computes M-RoPE positions; None for a model that has none of its own.
        progress: told how many examples were tokenised.

    Raises:
        DataError: when an example cannot be encoded at all, naming it and its file.
        OSError: when the disk does not take the cache.
    """

    def build(folder: Path) -> None:
        for difficulty, found in rows.items():
            writer = datasets.arrow_writer.ArrowWriter(
                path=str(folder / f"{difficulty}.arrow"), features=FEATURES
            )
            for row in _encode(found, encoder, positions, difficulty_file(difficulty)):
                writer.write(row)
                progress(1)
            if not len(found):
                writer.write_table(FEATURES.arrow_schema.empty_table())
            writer.finalize()

    build_once(place, build)
    return {
        difficulty: datasets.Dataset.from_file(str(place / f"{difficulty}.arrow")).with_format(
            "numpy"
        )
        for difficulty in rows
    }


def _encode(
    rows: Any, encoder: Encoder, positions: Positions | None, file: str
) -> Iterator[dict[str, Any]]:
    for row in rows:
        try:
            example = from_row(row)
        except DataError as error:  # which names the example
            raise DataError(f"{file}: {error}") from error
        try:
            encoded = encode_example(example, encoder)
        except DataError as error:
            raise DataError(f"{file}: example {example.id}: {error}") from error
        ids = torch.tensor(encoded.input_ids)
        grids = torch.tensor([encoder.image_grid(image) for image in encoded.images]).view(-1, 3)
        yield {
            "input_ids": encoded.input_ids,
            "labels": encoded.labels,
            "answer_start": encoded.answer_start,
            "positions": [] if positions is None else positions(ids, grids).flatten().tolist(),
            "images": [hashlib.sha256(content).hexdigest() for content in image_bytes(row)],
            "kinds": encoded.kinds,
        }


def image_bytes(row: Mapping[str, Any]) -> list[bytes]:
    """The stored images of a row, in the order in which the conversation shows them."""
    seen = [step["image"] for step in row["trajectory"] or () if step["image"]]
    return [image["bytes"] for image in [*(row["images"] or ()), *seen]]


def as_positions(flat: NDArray[np.int32]) -> torch.Tensor | None:
    """The (3, T) positions of a row, or None where there are none."""
    return torch.from_numpy(flat.reshape(3, -1).astype(np.int64)) if flat.size else None
