"""Caches next to a data folder: the tokens of each example, the vision features of each image.

A cache is a folder that is built completely or not at all. Its name includes a key of everything
that its content depends on.
"""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from pixelis.data.chat import system_prompt
from pixelis.data.encode import Encoder, RefusedImageError, encode_example
from pixelis.data.store import difficulty_file, from_row
from pixelis.errors import DataError
from pixelis.files import folder_bytes, staged_folder

# Positions (3, T) of the tokens of one example, from its ids (T,) and image grids (N, 3).
Positions = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Features (visual tokens, hidden size) of each image of a batch.
ComputeFeatures = Callable[[Sequence[bytes]], Sequence[torch.Tensor]]
# Increase this when the encoding of a text, or TOKEN_COLUMNS, changes.
TOKENS_VERSION = 3
TOKEN_COLUMNS = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "answer_start": datasets.Value("int32"),
        "positions": datasets.List(datasets.Value("int32")),
        "images": datasets.List(datasets.Value("string")),
        "kinds": datasets.List(datasets.Value("int8")),
        "refused": datasets.Value("string"),  # why there are no tokens; else empty
    }
)
INDEX_FILE, VALUES_FILE = "index.json", "features.bf16"


def cache_folder(data: Path) -> Path:
    """Return the cache folder next to a data folder; data-prep would delete one inside it."""
    path = data.resolve()
    return path.with_name(f".{path.name}.cache")


def cache_folders(data: Path, *, temporary: bool = True) -> Iterator[Path]:
    """Yield the possible cache folders of a data folder, in the order in which to try them.

    The first is next to the data, the second in the user's cache folder (`XDG_CACHE_HOME`). With
    `temporary` there is a third, which this process deletes at its end.
    """
    yield cache_folder(data)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home) / "pixelis"
    if temporary:
        path = tempfile.mkdtemp(prefix="pixelis-cache-")
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        yield Path(path)


def cache_key(facts: Mapping[str, Any]) -> str:
    """Return a name for content that depends on these facts (JSON).

    `_name_or_path` of a configuration is left out at any depth, since a model in another folder is
    the same model.
    """

    def without_path(item: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in item.items() if name != "_name_or_path"}

    kept = json.loads(json.dumps(facts, default=str), object_hook=without_path)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:24]


def build_once(path: Path, build: Callable[[Path], None], *, needed: float | None = None) -> Path:
    """Return a folder that is built if it does not exist; other processes wait while one builds.

    Args:
        path: the folder.
        build: fills an empty folder, which is then moved to `path`.
        needed: bytes that it takes, for the error of a full disk; None: more than was written.

    Raises:
        OSError: when it cannot be written, naming the path; nothing is left behind.
    """
    if path.is_dir():  # perhaps in a folder that cannot be written
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_dir():
            with staged_folder(path, lambda staged: needed or folder_bytes(staged)) as staged:
                build(staged)
    return path


def tokens_key(encoder: Encoder, digests: Mapping[str, str], base: Mapping[str, Any]) -> str:
    """Return the key of what the tokens depend on: data, tokenizer, template, image sizes.

    Args:
        encoder: the processor's encoder.
        digests: file name -> SHA-256 of the data.
        base: the model's configuration, on which the positions depend.
    """
    tokenizer = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return cache_key(
        {
            "version": TOKENS_VERSION,
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
    path: Path,
    rows: Mapping[str, Any],
    encoder: Encoder,
    positions: Positions | None,
    progress: Callable[[int], None],
) -> dict[str, datasets.Dataset]:
    """Return the memory-mapped tokens of one split by difficulty; build the cache if needed.

    An example whose image the processor refuses has no tokens, and the reason in `refused`.

    Args:
        path: the cache of this split.
        rows: rows of the split, by difficulty.
        encoder: an encoder without a limit on the length.
        positions: computes M-RoPE positions; None for a model that has none.
        progress: called with the number of examples encoded since the last call.

    Raises:
        DataError: when an example cannot be encoded, naming it and its file.
        OSError: when the cache cannot be written.
    """

    def build(folder: Path) -> None:
        for difficulty, split_rows in rows.items():
            writer = datasets.arrow_writer.ArrowWriter(
                path=str(folder / f"{difficulty}.arrow"), features=TOKEN_COLUMNS
            )
            for row in split_rows:
                writer.write(_token_row(row, encoder, positions, difficulty_file(difficulty)))
                progress(1)
            if not len(split_rows):
                writer.write_table(TOKEN_COLUMNS.arrow_schema.empty_table())
            writer.finalize()

    build_once(path, build)
    return {
        name: datasets.Dataset.from_file(str(path / f"{name}.arrow")).with_format("numpy")
        for name in rows
    }


def _token_row(
    row: Mapping[str, Any], encoder: Encoder, positions: Positions | None, file: str
) -> dict[str, Any]:
    try:
        encoded = encode_example(from_row(row), encoder)
        grids = [encoder.image_grid(image) for image in encoded.images]
    except RefusedImageError as error:
        empty: dict[str, Any] = {name: [] for name in TOKEN_COLUMNS}
        return empty | {"answer_start": 0, "refused": str(error)}
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    ids, grid_rows = torch.tensor(encoded.input_ids), torch.tensor(grids).view(-1, 3)
    return {
        "input_ids": encoded.input_ids,
        "labels": encoded.labels,
        "answer_start": encoded.answer_start,
        "positions": [] if positions is None else positions(ids, grid_rows).flatten().tolist(),
        "images": [hashlib.sha256(content).hexdigest() for content in image_bytes(row)],
        "kinds": encoded.kinds,
        "refused": "",
    }


def image_bytes(row: Mapping[str, Any]) -> list[bytes]:
    """Return the stored images of a row, in the order of the conversation."""
    step_images = [step["image"] for step in row["trajectory"] or () if step["image"]]
    return [image["bytes"] for image in [*(row["images"] or ()), *step_images]]


def as_positions(flat: NDArray[np.int32]) -> torch.Tensor | None:
    """Return the positions (3, T) of a row; None without stored positions."""
    return torch.from_numpy(flat.reshape(3, -1).astype(np.int64)) if flat.size else None


class VisionCache:
    """The features of images by the SHA-256 of their stored bytes, memory-mapped as bf16.

    bf16 loses nothing: autocast rounds the features to its 8 bits of mantissa in the first layer.
    """

    def __init__(self, path: Path) -> None:
        """Map the values of a cache folder without reading them."""
        index = json.loads((path / INDEX_FILE).read_text(encoding="utf-8"))
        width, self._spans = index["width"], index["spans"]
        rows = sum(length for _, length in self._spans.values())
        self._values = (
            np.memmap(path / VALUES_FILE, dtype=np.int16, mode="r", shape=(rows, width))
            if rows
            else np.zeros((0, width), dtype=np.int16)
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._spans)

    def __getitem__(self, digest: str) -> torch.Tensor:
        """Return the features of an image: (visual tokens, hidden size), bf16."""
        start, length = self._spans[digest]
        return torch.from_numpy(self._values[start : start + length].copy()).view(torch.bfloat16)


def open_features(
    path: Path,
    images: Iterable[tuple[str, bytes]],
    compute: ComputeFeatures,
    *,
    width: int,
    batch_size: int,
    progress: Callable[[int], None],
    num_bytes: int | None = None,
) -> VisionCache:
    """Return the vision features of a data set; build the cache if needed.

    Args:
        path: the cache; its name includes a key of the images, their sizes and the tower's weights.
        images: digest and stored bytes of each; may repeat.
        compute: the vision tower, up to the language model's hidden size.
        width: the hidden size.
        batch_size: images per call of `compute`.
        progress: called with the number of distinct images computed since the last call.
        num_bytes: bytes that the features may take, for the error of a full disk.

    Raises:
        OSError: when the cache cannot be written.
    """

    def build(folder: Path) -> None:
        spans: dict[str, list[int]] = {}
        with (folder / VALUES_FILE).open("wb") as file:
            num_rows = 0
            distinct = _distinct(images)
            while batch := dict(islice(distinct, batch_size)):
                for digest, features in zip(batch, compute(list(batch.values())), strict=True):
                    values = features.to(torch.bfloat16).contiguous().cpu()
                    file.write(values.view(torch.int16).numpy().tobytes())
                    spans[digest] = [num_rows, len(values)]
                    num_rows += len(values)
                progress(len(batch))
        index = {"width": width, "spans": spans}
        (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")

    return VisionCache(build_once(path, build, needed=num_bytes))


def _distinct(images: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for digest, content in images:
        if digest not in seen:
            seen.add(digest)
            yield digest, content
