"""What the frozen vision tower makes of each distinct image, computed once: bf16, memory-mapped."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pixelis.data.cache import build_once

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
