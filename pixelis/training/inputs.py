"""Checks of the inputs of a training: model, kernels and data."""

import json
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig, check_examples
from pixelis.data.example import DIFFICULTIES
from pixelis.data.images import FORMATS, MAX_PIXELS, image_digest, open_header
from pixelis.data.store import (
    SUMMARY_FILE,
    data_files,
    difficulty_file,
    from_row,
    load_split,
    read_rows,
)
from pixelis.errors import ConfigError, DataError
from pixelis.files import file_sha256
from pixelis.models.load import check_for_gpu, resolve_model

SPLITS_READ = ("train", "validation")
ROWS_AT_ONCE = 100


def check_model(model: ModelConfig, training: TrainingConfig | None = None) -> None:
    """Refuse a model, or kernels of a training, that this machine cannot train with.

    Raises:
        ConfigError: when no adapter is configured, or this machine lacks what a key needs.
        CheckpointError: when the base is a folder that does not exist.
    """
    if not model.use_lora:
        raise ConfigError(
            "model.use_lora must be true, got false (only the adapter is trained and saved)"
        )
    if model.load_in_4bit:
        check_for_gpu("model.load_in_4bit", "true", "bitsandbytes")
    if model.attn_implementation == "flash_attention_2":
        check_for_gpu("model.attn_implementation", "flash_attention_2", "flash_attn")
    resolve_model(model.model_name)
    if training and training.use_liger_kernel:
        check_for_gpu("training.use_liger_kernel", "true", "liger_kernel")
    if training and training.torch_compile:  # on a CPU it compiles for minutes and is slower then
        check_for_gpu("training.torch_compile", "true", "torch")


def check_inputs(
    folder: Path,
    curriculum: CurriculumConfig,
    exclude: Collection[str] = (),
    trusted: Path | None = None,
) -> None:
    """Refuse data that a training would fail on later, before anything is written.

    `trusted` takes the validation split's place for the strata (`data.trusted`).

    Raises:
        ConfigError: when a mix needs a difficulty that a split or `trusted` has no example of, or
            an excluded id is in neither split.
        DataError: when the folder or `trusted` cannot be read, an image does not open, or images of
            `trusted` are also in the train or test split.
    """
    splits = {split: load_split(folder, split) for split in SPLITS_READ}
    measured: dict[str, Any] = {} if trusted is None else load_trusted(trusted)
    needed = {f"the {split} split": rows for split, rows in splits.items()}
    if trusted is not None:
        del needed["the validation split"]
        needed[f"data.trusted {trusted}"] = measured
    sizes = {place: {d: len(rows) for d, rows in by.items()} for place, by in needed.items()}
    remedy = ""
    if curriculum.enabled and len(splits["train"]) == 1:
        (only,) = splits["train"]
        remedy = (
            f"All examples in {folder} are {only}: make them again with another difficulty.scorer "
            "(multi or model), or let sft train on all of them with curriculum.enabled=false"
        )
    check_examples(curriculum.fit_to_data(splits["train"]), sizes, remedy)
    known = {id for rows in splits.values() for each in rows.values() for id in each["id"]}
    if unknown := sorted(set(exclude) - known):
        raise ConfigError(
            f"data.exclude must be ids of examples of the train or validation split of {folder}, "
            f"got {', '.join(unknown):.300}"
        )
    for rows in splits.values():
        for difficulty, chosen in rows.items():
            _check_images(chosen, folder / difficulty_file(difficulty))
    if trusted is None:
        return
    for chosen in measured.values():
        _check_images(chosen, trusted)
    own = set(_image_digests(measured.values()))
    seen = (*splits["train"].values(), *load_split(folder, "test").values())
    if known := own.intersection(_image_digests(seen)):
        raise DataError(
            f"data.trusted {trusted} must hold images that are not in the train or test split of "
            f"{folder}, got {len(known)} that are"
        )


def load_trusted(path: Path) -> dict[str, datasets.Dataset]:
    """Return all rows of `data.trusted` by difficulty, whatever split they are in.

    Raises:
        DataError: when there is no such parquet file or folder with some, one cannot be read, or a
            row has another difficulty.
    """
    rows = pa.concat_tables([read_rows(file) for file in _trusted_files(path)])
    known = {name: rows.filter(pc.equal(rows.column("difficulty"), name)) for name in DIFFICULTIES}
    if num_others := len(rows) - sum(map(len, known.values())):
        raise DataError(
            f"data.trusted {path} must hold rows of the difficulties {', '.join(DIFFICULTIES)}, "
            f"got {num_others} of others"
        )
    return {name: datasets.Dataset(chosen) for name, chosen in known.items()}


def trusted_digests(path: Path | None) -> dict[str, str]:
    """Return the SHA-256 of each file of `data.trusted` by its place; none without it."""
    files = [] if path is None else _trusted_files(path)
    return {f"trusted {i}": _sha256(file, *_stamp(file)) for i, file in enumerate(files, 1)}


def _trusted_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        missing = "" if path.exists() else ", which does not exist"
        raise DataError(
            "data.trusted must be a parquet file of data-prep, or a folder of them, got "
            f"{path}{missing}"
        )
    return files


def _image_digests(datasets: Iterable[Any]) -> Iterator[str]:
    """Yield the digest of each image in a question: data-prep's of an only one, else computed."""
    for rows in datasets:
        counts = pc.list_value_length(rows.data.column("images")).to_pylist()
        for index, (text, count) in enumerate(zip(rows["provenance"], counts, strict=True)):
            try:
                digest = json.loads(text).get("image_digest")
            except (TypeError, ValueError, AttributeError, RecursionError):
                digest = None  # converting the row says what is wrong
            if count == 1 and isinstance(digest, str):
                yield digest
            else:
                yield from map(image_digest, from_row(rows[index]).images)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each data file by its name."""
    return {file.name: _sha256(file, *_stamp(file)) for file in data_files(folder)}


def _stamp(file: Path) -> tuple[int, ...]:
    """Return numbers that change with the file."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)  # a start asks for the same files four times
def _sha256(file: Path, *stamp: int) -> str:
    return file_sha256(file)


def data_digest(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each data file, checked against the ones that data-prep noted.

    Raises:
        DataError: when the summary cannot be read, does not name every file, or a file was changed.
    """
    digests, path = file_digests(folder), folder / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))["sha256"]
        noted = {name: str(summary[name]) for name in digests}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} does not hold the SHA-256 of each data file; run data-prep again"
        ) from error
    for name, digest in digests.items():
        if digest != noted[name]:
            raise DataError(
                f"{folder / name} is not what data-prep wrote ({SUMMARY_FILE} has another SHA-256)"
            )
    return digests


def _check_images(rows: Any, path: Path) -> None:
    """Check headers and checksums, which takes a hundredth of the time of decoding."""
    columns = rows.select_columns(["id", "images", "trajectory"])
    for batch in columns.iter(ROWS_AT_ONCE):
        for example_id, images, steps in zip(*batch.values(), strict=True):
            from_steps = [step["image"] for step in steps or () if step["image"]]
            for image in [*(images or ()), *from_steps]:
                try:
                    open_header(image["bytes"]).verify()
                # Pillow's readers raise many types of errors on broken bytes.
                except Exception as error:
                    formats = ", ".join(FORMATS)
                    raise DataError(
                        f"{path}: an image of example {example_id} does not open; "
                        f"images are embedded as {formats}, of at most {MAX_PIXELS} pixels"
                    ) from error
