"""The examples of a training, with caches on disk of their tokens and vision features."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pixelis.config import ModelConfig
from pixelis.curriculum import CurriculumConfig, check_examples
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
from pixelis.data.store import load_split
from pixelis.models.load import load_encoder, on_best_device
from pixelis.models.vision import FEATURES_MODEL, PositionRule, compute_features, vision_digest
from pixelis.progress import ProgressBar
from pixelis.training.inputs import SPLITS_READ, file_digests, load_trusted, trusted_digests

logger = logging.getLogger(__name__)

TRUSTED = "trusted"  # the dataset of data.trusted
GIB = 2**30
IMAGES_AT_ONCE = 16
MOST_SHOWN = 3  # examples that are named in a line
Opened = TypeVar("Opened")


def load_data(
    model: ModelConfig,
    folder: Path,
    curriculum: CurriculumConfig,
    max_length: int,
    exclude: Collection[str] = (),
    trusted: Path | None = None,
) -> tuple[Encoder, dict[str, CurriculumDataset]]:
    """Return the encoder of a model's processor, and the datasets `train` and `validation`.

    With the path `trusted` (`data.trusted`) there is a third one, `trusted`. Tokens are cached next
    to the data. Examples with more tokens than `max_length`, or with an image that the processor
    refuses, are left out, and of the two splits those whose id is in `exclude`.

    Raises:
        CheckpointError, DataError: when the processor or the data cannot be used.
        ConfigError: when a mix needs a difficulty of which no example is left to train or measure.
    """
    encoder = load_encoder(model, max_length)
    datasets = {
        split: CurriculumDataset(load_split(folder, split), encoder) for split in SPLITS_READ
    }
    use_token_cache(datasets, encoder, folder, model)
    of_exclude = " and those of data.exclude" if exclude else ""
    sizes = {
        f"the {split} split{_without(each)}{of_exclude},": each.exclude(exclude)
        for split, each in datasets.items()
    }
    if trusted is not None:
        datasets[TRUSTED] = CurriculumDataset(load_trusted(trusted), encoder)
        digests = trusted_digests(trusted)
        use_token_cache({TRUSTED: datasets[TRUSTED]}, encoder, folder, model, digests)
        sizes.popitem()  # of the validation split, which decides nothing
        sizes[f"data.trusted {trusted}{_without(datasets[TRUSTED])},"] = datasets[TRUSTED].sizes
    check_examples(curriculum.fit_to_data(datasets["train"].rows), sizes)
    return encoder, datasets


def _without(dataset: CurriculumDataset) -> str:
    """Say which examples a dataset is without, for an error."""
    text = f", without examples longer than training.max_length {dataset.encoder.max_length}"
    return f"{text} or refused by the model's processor" if any(dataset.refused.values()) else text


def use_token_cache(
    datasets: Mapping[str, CurriculumDataset],
    encoder: Encoder,
    folder: Path,
    model: ModelConfig,
    digests: Mapping[str, str] | None = None,
) -> None:
    """Make the splits read their tokens from disk; leave out and count examples that do not fit.

    The model's own class computes the positions. `digests` are those of the rows' files, by default
    of the data folder, next to which the cache is.
    """
    rule = PositionRule(model.model_name, trust_remote_code=model.trust_remote_code)
    unbounded = Encoder(encoder.processor)
    key = tokens_key(unbounded, digests or file_digests(folder), rule.facts)
    positions = rule if rule.is_known else None
    for split, dataset in datasets.items():

        def tokens_in(folder: Path, split: str = split, rows: Any = dataset.rows) -> Any:
            total = sum(map(len, rows.values()))
            with ProgressBar(f"tokenise {split}", total, "example", is_brief=True) as bar:
                path = folder / f"tokens-{split}-{key}"
                return open_tokens(path, rows, unbounded, positions, bar.update)

        dataset.use_tokens(_open_in_first(cache_folders(folder), tokens_in, "tokens"))
    _log_left_out(datasets, encoder.max_length)


def _log_left_out(datasets: Mapping[str, CurriculumDataset], max_length: int | None) -> None:
    """Log how many examples are left out, and of those that are refused the first ones."""

    def listed(counts: Mapping[tuple[str, str], int]) -> str:
        return ", ".join(f"{number} of {' '.join(key)}" for key, number in counts.items() if number)

    refused = {
        (split, difficulty): reasons
        for split, dataset in datasets.items()
        for difficulty, reasons in dataset.refused.items()
    }
    too_long = {key: number - len(refused[key]) for key, number in left_out(datasets).items()}
    if any(too_long.values()):
        logger.info(
            "longer than training.max_length %s and left out: %s", max_length, listed(too_long)
        )
    reasons = [reason for each in refused.values() for reason in each]
    if reasons:
        more = f"; and {len(reasons) - MOST_SHOWN} more" if len(reasons) > MOST_SHOWN else ""
        logger.info(
            "refused by the model's processor and left out: %s (%s%s)",
            listed({key: len(each) for key, each in refused.items()}),
            *("; ".join(reasons[:MOST_SHOWN]), more),
        )


def left_out(datasets: Mapping[str, CurriculumDataset]) -> dict[tuple[str, str], int]:
    """Return (split, difficulty) -> number of examples left out, where there are any."""
    return {
        (split, difficulty): number
        for split, dataset in datasets.items()
        for difficulty, number in dataset.left_out.items()
        if number
    }


def use_vision_cache(
    datasets: Mapping[str, CurriculumDataset],
    base: Any,
    encoder: Encoder,
    folder: Path,
    *,
    limit_gib: float,
) -> None:
    """Make the splits return the features of their images instead of the images, where possible.

    The splits have a token cache already. The base's vision tower has to be frozen and not rounded
    yet. A cache of more than `limit_gib` is not made.
    """
    if datasets["train"].features is not None:
        return  # the base is loaded twice for PiSSA and OLoRA
    if base.config.model_type != FEATURES_MODEL:
        logger.info("vision features are not cached: %s takes none", base.config.model_type)
        return
    width = base.config.text_config.hidden_size
    num_bytes = 2 * width * sum(dataset.num_image_tokens for dataset in datasets.values())
    if num_bytes > limit_gib * GIB:
        logger.info(
            "vision features are not cached: they take up to %.1f GiB, more than "
            "training.vision_cache_gib %g",
            *(num_bytes / GIB, limit_gib),
        )
        return
    # The tokenizer decides which examples are too long, and so which images are cached.
    digests = sorted(set().union(*(dataset.distinct_images for dataset in datasets.values())))
    key = cache_key(
        {
            "data": file_digests(folder),
            "images": encoder.image_processor.to_dict(),
            "tower": vision_digest(base),
            "seen": hashlib.sha256("".join(digests).encode()).hexdigest(),
        }
    )

    def features_in(folder: Path) -> VisionCache:
        title = "look at the images once"
        with ProgressBar(title, len(digests), "image", is_brief=True) as bar:
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
            folders = cache_folders(folder, temporary=False)
            cache = _open_in_first(folders, features_in, "vision features")
    except OSError as error:
        logger.info("vision features are not cached: %s", error)
        return
    for dataset in datasets.values():
        dataset.features = cache


def _open_in_first(folders: Iterator[Path], open_in: Callable[[Path], Opened], what: str) -> Opened:
    """Return the result of `open_in` for the first cache folder that can be written.

    Raises:
        OSError: when no folder can be written.
    """
    failed: OSError | None = None
    for folder in folders:
        if failed is not None:
            logger.info("%s: kept in %s, since %s", what, folder, failed)
        try:
            return open_in(folder)
        except OSError as error:
            failed = error
    assert failed is not None
    raise failed


def _images(datasets: Mapping[str, CurriculumDataset]) -> Iterator[tuple[str, bytes]]:
    for dataset in datasets.values():
        for key in dataset.all_keys():
            contents = image_bytes(dataset.rows[key[0]][key[1]])
            yield from zip(dataset.image_digests(key), contents, strict=True)
