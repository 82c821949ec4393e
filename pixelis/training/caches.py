"""What trainings on the same data need not compute again: tokens, positions, vision features."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixelis.config import ModelConfig
from pixelis.data.cache import cache_folder, cache_key
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoder
from pixelis.data.folder import file_sha256
from pixelis.data.store import SUMMARY_FILE, data_files
from pixelis.data.token_cache import image_bytes, open_tokens, tokens_key
from pixelis.data.vision_cache import open_features
from pixelis.models.vision import PositionRule, compute_features, takes_features, vision_digest

GIB = 2**30
IMAGES_AT_ONCE = 16
Say = Callable[[str], None]


def noted_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each data file as data-prep wrote it down, else computed."""
    try:
        noted = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))["sha256"]
        return {file.name: str(noted[file.name]) for file in data_files(folder)}
    except (OSError, ValueError, LookupError, TypeError):
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
    left_out: dict[str, int] = {}
    for split, dataset in datasets.items():
        place = cache_folder(folder) / f"tokens-{split}-{key}"
        try:
            with _bar(f"tokenise {split}", len(dataset), "example") as bar:
                found = open_tokens(
                    place, dataset.rows, unbounded, rule if rule.is_known else None, bar.update
                )
        except OSError as error:
            say(f"tokens are not kept on disk: {place.parent} cannot be written ({error})")
            return
        for difficulty, num in dataset.use_tokens(found).items():
            if num:
                left_out[f"{split} {difficulty}"] = num
    if left_out:
        listed = ", ".join(f"{num} of {name}" for name, num in left_out.items())
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
    if not all(dataset.has_tokens for dataset in datasets.values()):
        return False  # the tokens' cache has said why
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
            "splits": {split: dataset.sizes for split, dataset in datasets.items()},
        }
    )
    place = cache_folder(folder) / f"vision-{key}"
    try:
        with _bar("look at the images once", None, "image") as bar:
            cache = open_features(
                place,
                _images(datasets),
                lambda contents: compute_features(base, encoder, contents),
                width=width,
                batch_size=IMAGES_AT_ONCE,
                progress=bar.update,
            )
    except OSError as error:
        say(f"vision features are not cached: {place.parent} cannot be written ({error})")
        return False
    for dataset in datasets.values():
        dataset.features = cache
    return True


def _images(datasets: Mapping[str, CurriculumDataset]) -> Iterator[tuple[str, bytes]]:
    for dataset in datasets.values():
        for key in dataset.all_keys():
            contents = image_bytes(dataset.rows[key[0]][key[1]])
            yield from zip(dataset.image_digests(key), contents, strict=True)


def _bar(title: str, total: int | None, unit: str) -> "tqdm[Any]":
    return tqdm(total=total, unit=unit, desc=title, mininterval=1, delay=2, leave=False)
