"""What trainings on the same data need not compute again: tokens, positions, vision features."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.data.cache import (
    VisionCache,
    cache_folders,
    cache_key,
    image_bytes,
    open_features,
    open_tokens,
    tokens_key,
)
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoder
from pixelis.data.store import SUMMARY_FILE, data_files
from pixelis.files import file_sha256
from pixelis.models.device import on_best_device
from pixelis.models.vision import PositionRule, compute_features, takes_features, vision_digest

GIB = 2**30
IMAGES_AT_ONCE = 16
Say = Callable[[str], None]
Found = TypeVar("Found")


def noted_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each data file as data-prep wrote it down, else computed."""
    try:
        noted = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))["sha256"]
        return {file.name: str(noted[file.name]) for file in data_files(folder)}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {file.name: file_sha256(file) for file in data_files(folder)}


def use_token_cache(
    datasets: Mapping[str, CurriculumDataset],
    encoder: Encoder,
    folder: Path,
    model: ModelConfig,
    say: Say,
) -> None:
    """Let the splits read their tokens from disk; what is too long is left out and counted.

    Args:
        datasets: split -> its examples.
        encoder: of the model's processor, with the bound on the length.
        folder: of the data.
        model: section `model`: the positions are those of its class.
        say: prints a line.
    """
    rule = PositionRule(model.model_name, trust_remote_code=model.trust_remote_code)
    unbounded = Encoder(encoder.processor)
    digests = noted_digests(folder)
    key = tokens_key(unbounded, digests, rule.facts)
    too_long: dict[str, int] = {}
    positions = rule if rule.is_known else None
    for split, dataset in datasets.items():

        def tokens_in(folder: Path, split: str = split, rows: Any = dataset.rows) -> Any:
            with _bar(f"tokenise {split}", sum(map(len, rows.values())), "example") as bar:
                place = folder / f"tokens-{split}-{key}"
                return open_tokens(place, rows, unbounded, positions, bar.update)

        found = _in_first(folder, tokens_in, "tokens", say)
        for difficulty, num in dataset.use_tokens(found).items():
            if num:
                too_long[f"{split} {difficulty}"] = num
    if too_long:
        listed = ", ".join(f"{num} of {name}" for name, num in too_long.items())
        say(f"longer than training.max_length {encoder.max_length} and left out: {listed}")


def use_vision_cache(
    datasets: Mapping[str, CurriculumDataset],
    base: Any,
    encoder: Encoder,
    folder: Path,
    say: Say,
    *,
    limit_gib: float,
) -> bool:
    """Let the splits give the features of their images instead of the images, where it can be.

    Args:
        datasets: split -> its examples, with a token cache.
        base: whose tower is frozen.
        encoder: of its processor.
        folder: of the data.
        say: prints a line that says why not.
        limit_gib: the largest size.

    Returns:
        whether they do.
    """
    if not takes_features(base):
        say(f"vision features are not cached: {base.config.model_type} takes none")
        return False
    width = base.config.text_config.hidden_size
    num_bytes = 2 * width * sum(dataset.num_image_tokens for dataset in datasets.values())
    if num_bytes > limit_gib * GIB:
        say(
            f"vision features are not cached: they take up to {num_bytes / GIB:.1f} GiB, more than "
            f"training.vision_cache_gib {limit_gib:g}"
        )
        return False
    key = cache_key(
        {
            "data": noted_digests(folder),
            "images": encoder.image_processor.to_dict(),
            "tower": vision_digest(base),
            # Which are left out for their length is the tokenizer's doing.
            "seen": _digest_of_images(datasets),
        }
    )

    def features_in(folder: Path) -> VisionCache:
        with _bar("look at the images once", None, "image") as bar:
            return open_features(
                folder / f"vision-{key}",
                _images(datasets),
                lambda contents: compute_features(base, encoder, contents),
                width=width,
                batch_size=IMAGES_AT_ONCE,
                progress=bar.update,
                num_bytes=num_bytes,
            )

    try:
        with on_best_device(base.model.visual):
            cache = _in_first(folder, features_in, "vision features", say, temporary=False)
    except OSError as error:
        say(f"vision features are not cached: {error}")
        return False
    for dataset in datasets.values():
        dataset.features = cache
    return True


def left_out(datasets: Mapping[str, CurriculumDataset]) -> dict[str, float]:
    """Metric -> how many examples of a split's difficulty are longer than the encoder allows."""
    return {
        f"data/{split}/{difficulty}/left_out": number
        for split, dataset in datasets.items()
        for difficulty, number in dataset.left_out.items()
        if number
    }


def look_once(
    datasets: Mapping[str, CurriculumDataset],
    encoder: Encoder,
    training: TrainingConfig,
    model: ModelConfig,
    folder: Path,
    say: Callable[[str], None],
    load: Callable[[], Any],
) -> None:
    """Let the base's vision tower look at each image once, where it stays as it is.

    Where it does not, or that is not wanted, the splits give images, whatever they gave to the
    training before; `load` gives the base as it was loaded.
    """
    if training.vision_cache != "auto" or model.train_vision or model.train_merger:
        for dataset in datasets.values():
            dataset.features = None
    elif datasets["train"].features is None:
        limit = training.vision_cache_gib
        use_vision_cache(datasets, load(), encoder, folder, say, limit_gib=limit)


def _in_first(
    data: Path,
    open_in: Callable[[Path], Found],
    what: str,
    say: Say,
    *,
    temporary: bool = True,
) -> Found:
    """What `open_in` makes in the first cache folder that takes it; the others are named.

    Raises:
        OSError: when none does.
    """
    failed: OSError | None = None
    for folder in cache_folders(data, temporary=temporary):
        if failed is not None:
            say(f"{what}: kept in {folder}, since {failed}")
        try:
            return open_in(folder)
        except OSError as error:
            failed = error
    assert failed is not None
    raise failed


def _digest_of_images(datasets: Mapping[str, CurriculumDataset]) -> str:
    found = sorted(set().union(*(dataset.distinct_images for dataset in datasets.values())))
    return hashlib.sha256("".join(found).encode()).hexdigest()


def _images(datasets: Mapping[str, CurriculumDataset]) -> Iterator[tuple[str, bytes]]:
    for dataset in datasets.values():
        for key in dataset.all_keys():
            contents = image_bytes(dataset.rows[key[0]][key[1]])
            yield from zip(dataset.image_digests(key), contents, strict=True)


def _bar(title: str, total: int | None, unit: str) -> "tqdm[Any]":
    return tqdm(total=total, unit=unit, desc=title, mininterval=1, delay=2, leave=False)
