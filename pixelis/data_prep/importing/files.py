"""Find the data files of an input, detect their format, and read their records one by one.

A record that cannot be read is yielded as an error. Memory is bounded by a few records.
"""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from pixelis.data.store import SUMMARY_FILE
from pixelis.data_prep.importing.values import (
    FIELD_NAMES,
    MAX_DEPTH,
    check_depth,
    parse_json,
    read_list,
    show,
)
from pixelis.errors import DataError

# Record format -> its name in errors and the report.
FORMATS = {
    "cota": "question, image, answer, perhaps trajectory",
    "messages": "messages with role and content",
    "conversations": "conversations with from and value",
}
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
# Files that data-prep itself writes next to the data.
OWN_FILES = (SUMMARY_FILE, "rejected.jsonl")
# Keys of a JSON object that may have the list of records as their value.
LIST_KEYS = ("samples", "data")
_CHAT_KEYS = (*FIELD_NAMES["messages"], "prompt")
# Bytes that are read to detect a file's container, and records to detect their format.
HEAD = 8 << 20
NUM_DETECTED = 50

# JSON of 16 million characters can become objects of 400 MB.
MAX_RECORD = 16_000_000
ROWS_AT_ONCE = 32
BYTES_AT_ONCE = 256 << 20
# Above BYTES_AT_ONCE, what is so many times larger than on disk: text and pixels are at most 20.
MAX_RATIO = 200
JsonEvents = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Input:
    """The files of the user's input, and the format of their records."""

    path: Path  # the input's path, as the user gave it
    folder: Path  # the folder that holds every image; image paths are relative to it
    # The data files, sorted, each with its container: `lines`, `list` or `parquet`.
    files: Mapping[Path, str]
    format: str  # a key of FORMATS, the same for all files

    def describe(self) -> str:
        """Describe the input in one line."""
        held = ", ".join(sorted(set(self.files.values())))
        return f"{len(self.files)} file(s) of {held}; format {self.format}"


@dataclass(frozen=True)
class Record:
    """One raw record."""

    file: str  # the name of its file
    line: int  # from 1: the line of JSON Lines, the element of a JSON list, or the row of parquet
    data: dict[str, Any] | None  # the record, or None if it cannot be read
    error: str = ""  # why it cannot be read
    reason: str = "broken_json"  # the reason of rejection that fits the error
    size: int = 0  # the record's size in bytes, about


def open_input(path: Path, *, input_format: str | None = None, images: Path | None = None) -> Input:
    """Look at an input file, or at the data files that lie directly in a folder.

    Args:
        path: the file or folder.
        input_format: a key of FORMATS; None detects it.
        images: the folder of the images, if it is not the input's own.

    Raises:
        DataError: when something is missing, or the format cannot be detected.
    """
    if images is not None and not images.is_dir():
        raise DataError(f"image_folder {images!s:.200} is not a folder")
    files = {file: detect_container(file) for file in _find_files(path)}
    own = path if path.is_dir() else path.parent
    return Input(path, images or own, files, input_format or _detect_format(files))


def _find_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
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
    for file in files:
        check_inside(file, path)
    return files


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file of a folder that is a link to somewhere else."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{file!s:.200} is a link that leaves the folder {folder!s:.200}; name the file"
        )


def detect_container(path: Path) -> str:
    """Detect a file's container from its content: `lines`, `list` or `parquet`.

    Raises:
        DataError: when the container is unknown, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DataError(f"input {path} cannot be read: {error.strerror}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    encoding = json.detect_encoding(head)
    if not encoding.startswith("utf-8"):
        raise DataError(f"input {path} looks like {encoding.upper()} text; save it as UTF-8")
    head = head.removeprefix(codecs.BOM_UTF8)
    lines = head.split(b"\n", NUM_DETECTED)
    values = [_parse_line(line, path.name, 1).data for line in lines if line.strip()]
    first = values[0] if values else None
    if first is not None and (
        format_of(first) or not any(isinstance(first.get(key), list) for key in LIST_KEYS)
    ):
        return "lines"
    events = ijson.basic_parse(_LineReader(io.BytesIO(head)), use_float=True)
    with suppress(ijson.JSONError, ValueError):
        if _enter_list(events):
            return "list"
    if any(value is not None for value in values):
        return "lines"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # its end may be half a character
    except UnicodeDecodeError as error:
        place = f"byte 0x{head[error.start]:02x} at {error.start}"
        raise DataError(f"input {path} is not UTF-8 ({place}); save it as UTF-8") from error
    raise DataError(
        f"input {path} holds no records; it must be JSON with a list of samples, "
        "JSON Lines (one record a line) or parquet"
    )


def format_of(data: Mapping[str, Any]) -> str:
    """Return the format of one record, detected from its keys; empty if no format fits."""
    lists = [name for name, value in data.items() if isinstance(read_list(value), list)]
    if any(name in _CHAT_KEYS for name in lists):
        return "messages"
    if "conversations" in lists:
        return "conversations"
    if any(isinstance(data.get(name), str) for name in (*FIELD_NAMES["question"], "input")):
        return "cota"
    return ""


def _detect_format(files: Mapping[Path, str]) -> str:
    detected: dict[str, Path] = {}
    last = "it is empty"
    for path, container in files.items():
        for record in islice(_read_file(path, container), NUM_DETECTED):
            if record.data is None:
                last = record.error
            elif name := format_of(record.data):
                detected.setdefault(name, path)
                break
            else:
                last = f"a record has the keys {', '.join(map(str, record.data)):.100}"
    if len(detected) > 1:
        held = " and ".join(f"{path} holds {name}" for name, path in detected.items())
        raise DataError(f"{held}; import them one by one, or name one format as input_format")
    if not detected:
        choices = "; ".join(f"{name} ({what})" for name, what in FORMATS.items())
        raise DataError(
            f"the format of {next(iter(files))} cannot be told ({last}); name it as input_format: "
            f"{choices}"
        )
    return next(iter(detected))


def read_records(source: Input) -> Iterator[Record]:
    """Read every record of the input in order.

    Raises:
        DataError: when a JSON list is broken; the text names the file and the line.
    """
    for path, container in source.files.items():
        yield from _read_file(path, container)


def _read_file(path: Path, container: str) -> Iterator[Record]:
    """Read one file; an error of the file system is yielded as a last, broken record."""
    line = 0
    try:
        for record in _READERS[container](path):
            line = record.line
            yield record
    except DataError:
        raise
    # Arrow on a damaged file: also ValueError (names that are not UTF-8), and sizes beyond reason.
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        detail = f"the file cannot be read on: {error!s:.150}"
        yield Record(path.name, line + 1, None, detail)


def _check_record(value: Any, name: str, number: int, size: int) -> Record:
    if not isinstance(value, dict):
        error = f"a record must be an object, got {show(value)}"
        return Record(name, number, None, error, "wrong_type", size)
    return Record(name, number, value, size=size)


# Not `load_dataset("json")`: it parses blocks of lines, and one broken line ends the stream before
# its block's first record; of a long list it reads the whole file, with one schema for all samples.


def _read_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_RECORD + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) > MAX_RECORD and not line.endswith(b"\n"):
                while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
                detail = f"a line may have {MAX_RECORD} bytes"
                yield Record(path.name, number, None, detail, "too_large")
            elif line.strip():
                yield _parse_line(line, path.name, number)


def _parse_line(line: bytes, name: str, number: int) -> Record:
    try:
        return _check_record(parse_json(line.decode("utf-8")), name, number, len(line))
    except ValueError as error:
        return Record(name, number, None, f"not JSON: {error!s:.120}")


class _LineReader:
    """A file that ijson reads line by line, so that an error lies in the line that was read last.

    Attributes:
        line: the number of the line that was read last, from 1.
        size: bytes that were read since the last record.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.line, self.size = 1, 0
        self._file = file
        self._ends_line = False

    def read(self, size: int) -> bytes:
        """Read the next line, or its next part; a ValueError if the record is too large."""
        if self.size > MAX_RECORD:
            raise ValueError(f"a record may have {MAX_RECORD} characters")
        text = self._file.readline(size)
        if text:
            self.line += self._ends_line
            self._ends_line = text.endswith(b"\n")
            self.size += len(text)
        return text


def _read_list(path: Path) -> Iterator[Record]:
    """Read one long JSON list; broken, or with too large an element, it is refused as a whole."""
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        reader = _LineReader(file)
        try:
            for number, value in enumerate(_read_elements(reader), 1):
                yield _check_record(value, path.name, number, reader.size)
                reader.size = 0
        except (ijson.JSONError, ValueError) as error:
            # Only the first line: ijson shows the text around the error, at times as bytes' repr.
            what = re.split(r"\n|\\n", str(error).removeprefix("b'"))[0]
            raise DataError(
                f"input {path!s:.200} is broken at line {reader.line} (before byte {file.tell()}): "
                f"{what:.120}; mend it, or write JSON Lines, of which a broken line costs one "
                "record"
            ) from error


def _enter_list(events: JsonEvents) -> bool:
    """Read on to the list of records, the outermost one or the one under a key of LIST_KEYS."""
    depth, key = 0, None
    for event, value in events:
        if event == "start_array" and (depth == 0 or (depth == 1 and key in LIST_KEYS)):
            return True
        depth += event.startswith("start_") - event.startswith("end_")
        if depth == 1 and event == "map_key":
            key = value
    return False


def _read_elements(reader: _LineReader) -> Iterator[Any]:
    # Not `ijson.items`: its path of a nested element takes memory by the square of the depth.
    # With `use_float`: without it ijson 3.6 crashes on an integer of 5,000 digits.
    events = ijson.basic_parse(reader, use_float=True)

    def outside() -> JsonEvents:
        for event in events:
            reader.size = 0  # what is no record may be long
            yield event

    if not _enter_list(outside()):
        raise ValueError("the file holds no list of records")
    depth = 0
    for event, value in events:
        if depth == 0:
            if event == "end_array":
                break
            builder = ijson.ObjectBuilder()
        builder.event(event, value)
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested too deeply, more than {MAX_DEPTH}")
        if depth == 0:
            yield builder.value
    for _ in outside():  # also check the JSON after the list
        pass


def _read_rows(path: Path) -> Iterator[Record]:
    """Read the rows of a parquet file in bounded memory, even if its metadata is wrong."""
    # Not `load_dataset("parquet", streaming=True)`: it fetches whole row groups ahead; on 400 MB of
    # photographs that took 1,830 MB of memory and 4.2 s, this 500 MB and 0.3 s.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        number = 0
        # By row group: a batch over several would need the memory of all of them.
        for group in range(file.metadata.num_row_groups):
            described = file.metadata.row_group(group)
            columns = [described.column(index) for index in range(described.num_columns)]
            size = sum(column.total_uncompressed_size for column in columns)
            on_disk = sum(column.total_compressed_size for column in columns)
            if size > max(BYTES_AT_ONCE, MAX_RATIO * on_disk):
                detail = (
                    f"a row group of more than {BYTES_AT_ONCE} bytes may be {MAX_RATIO} times as "
                    f"large as in the file, got {size} bytes from {on_disk}"
                )
                yield Record(path.name, number + 1, None, detail, "too_large")
                number += described.num_rows
                continue
            # A row holds at most all of its group: its values may be one large one of a dictionary.
            rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, size)))
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                for row in batch.to_pylist(maps_as_pydicts="lossy"):
                    number += 1
                    share = batch.nbytes // batch.num_rows
                    try:
                        check_depth(row)  # of JSON, the parser checks it
                    except ValueError as error:
                        yield Record(path.name, number, None, str(error), "too_large", share)
                    else:
                        yield _check_record(row, path.name, number, share)


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "lines": _read_lines,
    "list": _read_list,
    "parquet": _read_rows,
}
