"""Caches for trainings on the same data: tokens and vision features on disk, bases in memory."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from peft import PeftModel
from tqdm import tqdm

from pixelis.config import ModelConfig, TrainingConfig
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
from pixelis.data.store import SUMMARY_FILE, data_files, load_split
from pixelis.files import file_sha256
from pixelis.models.device import on_best_device
from pixelis.models.load import load_processor
from pixelis.models.pissa import changes_base
from pixelis.models.vision import (
    PositionRule,
    accepts_image_features,
    compute_features,
    vision_digest,
)
from pixelis.training.adapter import load_base
from pixelis.training.inputs import build_datasets
from pixelis.training.precision import BF16, FP32, halve_base, resolve_precision

logger = logging.getLogger(__name__)

GIB = 2**30
IMAGES_AT_ONCE = 16
Opened = TypeVar("Opened")
# Called with a function that returns the base as it was loaded, before any rounding.
UseBase = Callable[[Callable[[], Any]], None]


def noted_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each data file, as data-prep noted it or else computed now."""
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
) -> None:
    """Make the splits read their tokens from disk; leave out and count examples that are too long.

    Args:
        datasets: split -> its examples.
        encoder: encoder with the model's processor and the maximum length.
        folder: folder of the data.
        model: section `model`; its class computes the positions.
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
                path = folder / f"tokens-{split}-{key}"
                return open_tokens(path, rows, unbounded, positions, bar.update)

        tokens = _open_in_first(folder, tokens_in, "tokens")
        for difficulty, num in dataset.use_tokens(tokens).items():
            if num:
                too_long[f"{split} {difficulty}"] = num
    if too_long:
        listed = ", ".join(f"{num} of {name}" for name, num in too_long.items())
        logger.info(
            "longer than training.max_length %s and left out: %s", encoder.max_length, listed
        )


def use_vision_cache(
    datasets: Mapping[str, CurriculumDataset],
    base: Any,
    encoder: Encoder,
    folder: Path,
    *,
    limit_gib: float,
) -> bool:
    """Make the splits return the features of their images instead of the images, where possible.

    Args:
        datasets: split -> its examples, with a token cache.
        base: model with a frozen vision tower.
        encoder: encoder with the model's processor.
        folder: folder of the data.
        limit_gib: largest size of the cache.

    Returns:
        Whether the splits return features.
    """
    if not accepts_image_features(base):
        logger.info("vision features are not cached: %s takes none", base.config.model_type)
        return False
    width = base.config.text_config.hidden_size
    num_bytes = 2 * width * sum(dataset.num_image_tokens for dataset in datasets.values())
    if num_bytes > limit_gib * GIB:
        logger.info(
            "vision features are not cached: they take up to %.1f GiB, more than "
            "training.vision_cache_gib %g",
            *(num_bytes / GIB, limit_gib),
        )
        return False
    key = cache_key(
        {
            "data": noted_digests(folder),
            "images": encoder.image_processor.to_dict(),
            "tower": vision_digest(base),
            # The tokenizer decides which examples are too long, and so which images are cached.
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
            cache = _open_in_first(folder, features_in, "vision features", temporary=False)
    except OSError as error:
        logger.info("vision features are not cached: %s", error)
        return False
    for dataset in datasets.values():
        dataset.features = cache
    return True


def left_out(datasets: Mapping[str, CurriculumDataset]) -> dict[str, float]:
    """Return metric -> number of examples of a split and difficulty that are too long."""
    return {
        f"data/{split}/{difficulty}/left_out": number
        for split, dataset in datasets.items()
        for difficulty, number in dataset.left_out.items()
        if number
    }


def use_features(
    datasets: Mapping[str, CurriculumDataset],
    encoder: Encoder,
    training: TrainingConfig,
    model: ModelConfig,
    folder: Path,
    load: Callable[[], Any],
) -> None:
    """Cache the features of each image where the vision tower is frozen and a cache is wanted.

    Otherwise the splits return images, even if an earlier training had set a cache on them.

    Args:
        datasets: split -> its examples, with a token cache.
        encoder: encoder with the model's processor.
        training: section `training`.
        model: section `model`.
        folder: folder of the data.
        load: returns the base as it was loaded, before any rounding.
    """
    if training.vision_cache != "auto" or model.train_vision or model.train_merger:
        for dataset in datasets.values():
            dataset.features = None
    elif datasets["train"].features is None:
        limit = training.vision_cache_gib
        use_vision_cache(datasets, load(), encoder, folder, limit_gib=limit)


def _open_in_first(
    data: Path,
    open_in: Callable[[Path], Opened],
    what: str,
    *,
    temporary: bool = True,
) -> Opened:
    """Return the result of `open_in` for the first cache folder that can be written.

    Raises:
        OSError: when no folder can be written.
    """
    failed: OSError | None = None
    for folder in cache_folders(data, temporary=temporary):
        if failed is not None:
            logger.info("%s: kept in %s, since %s", what, folder, failed)
        try:
            return open_in(folder)
        except OSError as error:
            failed = error
    assert failed is not None
    raise failed


def _digest_of_images(datasets: Mapping[str, CurriculumDataset]) -> str:
    digests = sorted(set().union(*(dataset.distinct_images for dataset in datasets.values())))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _images(datasets: Mapping[str, CurriculumDataset]) -> Iterator[tuple[str, bytes]]:
    for dataset in datasets.values():
        for key in dataset.all_keys():
            contents = image_bytes(dataset.rows[key[0]][key[1]])
            yield from zip(dataset.image_digests(key), contents, strict=True)


def _bar(title: str, total: int | None, unit: str) -> "tqdm[Any]":
    return tqdm(total=total, unit=unit, desc=title, mininterval=1, delay=2, leave=False)


class TrainingCache:
    """The processors, encoded splits and bases that the trainings of one process share.

    A training leaves no trace on them: the next one computes the same numbers as it would in a
    process of its own.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._data: dict[tuple[Any, ...], _Data] = {}
        self._tests: dict[tuple[Any, ...], CurriculumDataset] = {}
        self._bases: dict[tuple[Any, ...], Any] = {}
        self._in_use: tuple[Any, ...] | None = None  # key of the base that was returned last
        self._adapted: PeftModel | None = None

    def load_data(
        self, model: ModelConfig, folder: Path, curriculum: CurriculumConfig, *, max_length: int
    ) -> tuple[Encoder, dict[str, CurriculumDataset]]:
        """Return the encoder of a model's processor, and the train and validation splits.

        Their tokens are cached next to the data; examples that are too long are left out.

        Raises:
            CheckpointError, DataError: see `load_processor` and `build_datasets`.
            ConfigError: when a mix needs a difficulty of which a split has no example that is short
                enough.
        """
        key = (
            *(model.model_name, model.min_pixels, model.max_pixels, model.trust_remote_code),
            # The splits will hold vision features, which depend on the tower and its dtype.
            *(model.torch_dtype, model.attn_implementation, model.load_in_4bit),
            *(folder.resolve(), max_length),
        )
        if key not in self._data:
            processor = load_processor(
                model.model_name,
                min_pixels=model.min_pixels,
                max_pixels=model.max_pixels,
                trust_remote_code=model.trust_remote_code,
            )
            encoder = Encoder(processor, max_length=max_length)
            datasets = build_datasets(folder, encoder, curriculum)
            all_sizes = {split: dataset.sizes for split, dataset in datasets.items()}
            use_token_cache(datasets, encoder, folder, model)
            self._data[key] = encoder, datasets, all_sizes
        encoder, datasets, all_sizes = self._data[key]
        check_examples(curriculum, all_sizes)
        sizes = {split: dataset.sizes for split, dataset in datasets.items()}
        too_long = f"those longer than training.max_length {max_length}"
        check_examples(curriculum, sizes, without=too_long)
        return encoder, datasets

    def prepare(
        self,
        model: ModelConfig,
        folder: Path,
        curriculum: CurriculumConfig,
        training: TrainingConfig,
    ) -> None:
        """Load data, caches and base before the first training needs them.

        Raises:
            CheckpointError, ConfigError, DataError: see `load_data` and `load_base`.
        """
        encoder, datasets = self.load_data(
            model, folder, curriculum, max_length=training.max_length
        )
        self.load_base(
            model,
            precision=resolve_precision(training.precision),
            use=partial(use_features, datasets, encoder, training, model, folder),
        )
        self._in_use = None  # no adapter was put on the base, so there is none to remove

    def load_test(self, folder: Path, encoder: Encoder) -> CurriculumDataset:
        """Return the test split, encoded by an encoder of `load_data`.

        Raises:
            DataError: when the folder cannot be read.
        """
        key = (folder.resolve(), id(encoder))
        if key not in self._tests:
            self._tests[key] = CurriculumDataset(load_split(folder, "test"), encoder)
        return self._tests[key]

    def load_base(
        self, model: ModelConfig, *, precision: str = FP32, use: UseBase | None = None
    ) -> Any:
        """Return the base of a configuration, free of adapters, in evaluation mode.

        Args:
            model: section `model`.
            precision: with `bf16` the weights are rounded, unless they are bf16 already.
            use: called with a function that returns the base before any rounding.
        """
        self.remove_adapter()
        is_halved = precision == BF16 and not model.load_in_4bit
        key = (model.model_name, model.torch_dtype, model.attn_implementation, is_halved)
        # An adapter that moves weights out of the base (PiSSA) changes it, so it is not shared.
        is_shared = not changes_base(model.init_lora_weights) and not model.load_in_4bit
        base = self._bases.get(key) if is_shared else None
        if base is None:
            base = load_base(model)
            if use is not None:
                use(partial(_identity, base))
            if is_halved:
                halve_base(base)
            if is_shared:
                self._bases[key] = base
        elif use is not None:
            use(partial(load_base, model) if is_halved else partial(_identity, base))
        self._in_use = key if is_shared else None
        if getattr(base, "is_gradient_checkpointing", False):
            base.gradient_checkpointing_disable()
        return base.eval()

    def keep_adapted(self, adapted: PeftModel) -> None:
        """Remember which adapter is on the base, to remove it for the next training."""
        self._adapted = adapted

    def remove_adapter(self) -> None:
        """Remove the last training's adapter from the base."""
        if self._adapted is not None:
            base = self._adapted.unload()
            if hasattr(base, "peft_config"):
                del base.peft_config
        elif self._in_use is not None:  # a training failed while its adapter was being added
            del self._bases[self._in_use]
        self._adapted = self._in_use = None


_Data = tuple[Encoder, dict[str, CurriculumDataset], dict[str, dict[str, int]]]


def _identity(base: Any) -> Any:
    return base
