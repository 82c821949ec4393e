"""Things that are computed once for a data folder and kept beside it: built whole or not at all."""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from pixelis.data.chat import system_prompt
from pixelis.data.encode import Encoder, encode_example
from pixelis.data.store import difficulty_file, from_row
from pixelis.errors import DataError
from pixelis.files import folder_bytes, named, put_folder

SCRATCH = ".part"


def cache_folder(data: Path) -> Path:
    """Where the caches of a data folder are: beside it, since data-prep replaces it as a whole."""
    place = data.resolve()
    return place.with_name(f".{place.name}.cache")


def cache_folders(data: Path, *, temporary: bool = True) -> Iterator[Path]:
    """Where the caches of a data folder may be, the best first; the next one where one fails.

    Beside the data; else in the user's cache folder (`XDG_CACHE_HOME`); else, where `temporary`, in
    one of this process alone, which is gone with it.
    """
    yield cache_folder(data)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home) / "pixelis"
    if not temporary:
        return
    passing = tempfile.mkdtemp(prefix="pixelis-cache-")
    atexit.register(shutil.rmtree, passing, ignore_errors=True)
    yield Path(passing)


def cache_key(facts: Mapping[str, Any]) -> str:
    """A name for what is computed from these facts (JSON)."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def build_once(place: Path, build: Callable[[Path], None], *, needed: float | None = None) -> Path:
    """A folder that `build` fills, once; several processes that need it wait for the one that does.

    Args:
        place: where it is to be.
        build: writes into an empty folder beside it, which then takes its place.
        needed: bytes that it takes, for the message of a full disk; None: more than it came to.

    Raises:
        OSError: when the disk does not take it, naming the place; nothing is left of it.
    """
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if place.is_dir():
            return place
        for left in place.parent.glob(f".{place.name}.*{SCRATCH}"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        names = {"prefix": f".{place.name}.", "suffix": SCRATCH}
        scratch = Path(tempfile.mkdtemp(dir=place.parent, **names))
        try:
            scratch.chmod(0o755)  # others of a team may read it
            build(scratch)
            put_folder(scratch, place)
        except OSError as error:
            raise named(error, place, needed or folder_bytes(scratch)) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


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


INDEX_FILE, VALUES_FILE = "index.json", "features.bf16"
# Features (N of one image, H) of a batch of images.
Compute = Callable[[Sequence[bytes]], Sequence[torch.Tensor]]


class VisionCache:
    """Features by the SHA-256 of the stored image.

    bf16 keeps 8 bits of the mantissa: what autocast would round them to in the first layer anyway.
    """

    def __init__(self, place: Path) -> None:
        """Map the values; nothing is read before it is asked for."""
        index = json.loads((place / INDEX_FILE).read_text(encoding="utf-8"))
        self.width: int = index["width"]
        self._spans: dict[str, list[int]] = index["spans"]
        rows = sum(length for _, length in self._spans.values())
        self._values = (
            np.memmap(place / VALUES_FILE, dtype=np.int16, mode="r", shape=(rows, self.width))
            if rows
            else np.zeros((0, self.width), dtype=np.int16)
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._spans)

    @property
    def num_bytes(self) -> int:
        """Of the values."""
        return int(self._values.nbytes)

    def __getitem__(self, digest: str) -> torch.Tensor:
        """The features of an image, (visual tokens, hidden size), bf16."""
        start, length = self._spans[digest]
        return torch.from_numpy(self._values[start : start + length].copy()).view(torch.bfloat16)


def open_features(
    place: Path,
    images: Iterable[tuple[str, bytes]],
    compute: Compute,
    *,
    width: int,
    batch_size: int,
    progress: Callable[[int], None],
    num_bytes: int | None = None,
) -> VisionCache:
    """Map the features, computing them where they are not there.

    Args:
        place: the cache, named after images, sizes and the tower's weights.
        images: digest and stored bytes of each, repetitions allowed.
        compute: the tower and what follows it, up to the language model's width.
        width: of the features.
        batch_size: images that are computed at once.
        progress: told how many distinct images are through.
        num_bytes: that they may take, for the message of a full disk.

    Raises:
        OSError: when the disk does not take them.
    """

    def build(folder: Path) -> None:
        spans: dict[str, list[int]] = {}
        written, waiting = 0, dict[str, bytes]()
        with (folder / VALUES_FILE).open("wb") as file:

            def flush() -> None:
                nonlocal written
                for digest, found in zip(waiting, compute(list(waiting.values())), strict=True):
                    values = found.to(torch.bfloat16).contiguous().cpu()
                    file.write(values.view(torch.int16).numpy().tobytes())
                    spans[digest] = [written, len(values)]
                    written += len(values)
                progress(len(waiting))
                waiting.clear()

            for digest, content in images:
                if digest not in spans and digest not in waiting:
                    waiting[digest] = content
                    if len(waiting) == batch_size:
                        flush()
            if waiting:
                flush()
        index: Mapping[str, object] = {"width": width, "spans": spans}
        (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")

    return VisionCache(build_once(place, build, needed=num_bytes))
