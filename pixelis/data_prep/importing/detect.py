"""What an input is: its files, how each holds its records, and the records' format, by content."""

import io
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pixelis.data.store import SUMMARY_FILE
from pixelis.data_prep.importing.json_list import LIST_KEYS, Scanner, find_list, parse_record
from pixelis.data_prep.importing.read import read_file
from pixelis.data_prep.importing.record import FORMATS, Input
from pixelis.data_prep.importing.values import FIELD_NAMES, show
from pixelis.errors import DataError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
# What data-prep itself writes beside the data.
OWN_FILES = (SUMMARY_FILE, "rejected.jsonl")
HEAD = 8 << 20
RECORDS_LOOKED_AT = 50


def open_input(path: Path, *, input_format: str | None = None, images: Path | None = None) -> Input:
    """Look at an input file, or at the data files that lie directly in a folder.

    Args:
        path: the file or folder.
        input_format: a key of FORMATS; None detects it.
        images: the folder of the images where it is another than the input's own.

    Raises:
        DataError: when something is missing or can be told for none of the formats.
    """
    if input_format is not None and input_format not in FORMATS:
        choices = ", ".join(FORMATS)
        raise DataError(f"input_format must be one of {choices}, got {input_format!r:.60}")
    if images is not None and not images.is_dir():
        raise DataError(f"image_folder {images!s:.200} is not a folder")
    files = _find_files(path)
    own = path if path.is_dir() else path.parent
    containers = tuple(detect_container(file) for file in files)
    found = input_format or _detect_format(files, containers)
    return Input(path, images or own, files, found, containers, input_format is None)


def _find_files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise DataError(f"input {path!s:.200} does not exist; name a file or a folder")
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in SUFFIXES
        and file.name not in OWN_FILES
        and not file.name.startswith(".")
        and file.is_file()
    )
    if not files:
        raise DataError(
            f"input {path!s:.200} holds no data file; a data file ends in {', '.join(SUFFIXES)}"
        )
    outside = [f for f in files if not f.resolve().is_relative_to(path.resolve())]
    if outside:
        raise DataError(f"{outside[0]} is a link that leaves the folder {path}; name the file")
    return tuple(files)


def detect_container(path: Path) -> str:
    """How a file holds its records, by its content: `lines`, `list` or `parquet`.

    Raises:
        DataError: when it is none of them, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DataError(f"input {path} cannot be read: {error.strerror}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", RECORDS_LOOKED_AT)
    values = [parse_record(line.decode("utf-8", "replace"))[0] for line in lines if line.strip()]
    first = values[0] if values else None
    if isinstance(first, dict) and (
        format_of(first) or not any(isinstance(first.get(key), list) for key in LIST_KEYS)
    ):
        return "lines"
    if find_list(Scanner(io.BytesIO(head))):
        return "list"
    if any(isinstance(value, dict) for value in values):
        return "lines"
    raise DataError(
        f"input {path} holds no records; it must be JSON with a list of samples, "
        "JSON Lines (one record a line) or parquet"
    )


def format_of(data: Mapping[str, Any]) -> str:
    """The format of one record by its keys; empty where they tell none."""
    if isinstance(data.get("messages"), list) or (
        isinstance(data.get("prompt"), list) and isinstance(data.get("completion"), list)
    ):
        return "messages"
    if isinstance(data.get("conversations"), list):
        return "conversations"
    if any(isinstance(data.get(name), str) for name in FIELD_NAMES["question"]):
        return "cota"
    return ""


def _detect_format(files: tuple[Path, ...], containers: tuple[str, ...]) -> str:
    found: dict[str, Path] = {}
    last = "it is empty"
    for path, container in zip(files, containers, strict=True):
        for record in islice(read_file(path, container, path.name), RECORDS_LOOKED_AT):
            if record.data is None:
                last = record.error
            elif name := format_of(record.data):
                found.setdefault(name, path)
                break
            else:
                last = f"a record has the keys {show(', '.join(map(str, record.data)), 100)}"
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise DataError(
            f"{first} holds {one} and {second} holds {other}; import them one by one, or name "
            "one format as input_format"
        )
    if not found:
        choices = "; ".join(f"{name} ({what})" for name, what in FORMATS.items())
        raise DataError(
            f"the format of {files[0]} cannot be told ({last}); name it as input_format: {choices}"
        )
    return next(iter(found))
