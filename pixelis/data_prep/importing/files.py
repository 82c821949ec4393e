"""Find the data files of an input, detect their format, and read their records one by one.

A record that cannot be read is yielded as an error. Memory is bounded by a few records.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import pyarrow as pa

from pixelis.data.store import SUMMARY_FILE
from pixelis.data_prep.importing.parquet import read_rows
from pixelis.data_prep.importing.record import FORMATS, Input, Record
from pixelis.data_prep.importing.values import FIELD_NAMES, is_deep, parse_json, show
from pixelis.errors import DataError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
# Files that data-prep itself writes next to the data.
OWN_FILES = (SUMMARY_FILE, "rejected.jsonl")
# Keys of a JSON object that may have the list of records as their value.
LIST_KEYS = ("samples", "data")
# Bytes that are read to detect a file's container, and records to detect their format.
HEAD = 8 << 20
NUM_DETECTED = 50

# JSON of 16 million characters can become objects of 400 MB.
MAX_RECORD = 16_000_000
# More than a record needs (turns, a call and MAX_DEPTH inside it), far less than pickle's limit.
MAX_RECORD_DEPTH = 64
TOO_DEEP = f"a record may be nested {MAX_RECORD_DEPTH} deep"
JsonEvents = Iterator[tuple[str, Any]]


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
    files = _find_files(path)
    own = path if path.is_dir() else path.parent
    containers = tuple(detect_container(file) for file in files)
    detected = input_format or _detect_format(files, containers)
    return Input(path, images or own, files, detected, containers, input_format is None)


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
    for file in files:
        check_inside(file, path)
    return tuple(files)


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file of a folder that is a link to somewhere else."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{file} is a link that leaves the folder {folder}; name the file")


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
    lines = head.removeprefix(codecs.BOM_UTF8).split(b"\n", NUM_DETECTED)
    values = [_parse_text(line.decode("utf-8", "replace"))[0] for line in lines if line.strip()]
    first = values[0] if values else None
    if isinstance(first, dict) and (
        format_of(first) or not any(isinstance(first.get(key), list) for key in LIST_KEYS)
    ):
        return "lines"
    if _holds_list(head):
        return "list"
    if any(isinstance(value, dict) for value in values):
        return "lines"
    raise DataError(
        f"input {path} holds no records; it must be JSON with a list of samples, "
        "JSON Lines (one record a line) or parquet"
    )


def _holds_list(head: bytes) -> bool:
    try:
        return _enter_list(ijson.basic_parse(_LineReader(io.BytesIO(head))))
    except (ijson.JSONError, ArithmeticError, ValueError):
        return False


def format_of(data: Mapping[str, Any]) -> str:
    """Return the format of one record, detected from its keys; empty if no format fits."""
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
    detected: dict[str, Path] = {}
    last = "it is empty"
    for path, container in zip(files, containers, strict=True):
        for record in islice(_read_file(path, container), NUM_DETECTED):
            if record.data is None:
                last = record.error
            elif name := format_of(record.data):
                detected.setdefault(name, path)
                break
            else:
                last = f"a record has the keys {show(', '.join(map(str, record.data)), 100)}"
    if len(detected) > 1:
        (one, first), (other, second) = list(detected.items())[:2]
        raise DataError(
            f"{first} holds {one} and {second} holds {other}; import them one by one, or name "
            "one format as input_format"
        )
    if not detected:
        choices = "; ".join(f"{name} ({what})" for name, what in FORMATS.items())
        raise DataError(
            f"the format of {files[0]} cannot be told ({last}); name it as input_format: {choices}"
        )
    return next(iter(detected))


def read_records(source: Input) -> Iterator[Record]:
    """Read every record of the input in order.

    Raises:
        DataError: when one long JSON list is broken; the text names the file and the line.
    """
    for path, container in zip(source.files, source.containers, strict=True):
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


# JSON Lines. Not `load_dataset("json")`: it parses blocks of lines, and one broken line ends the
# stream before its block's first record.


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
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Record(name, number, None, f"the text is not UTF-8 ({error.reason})")
    value, error_text = _parse_text(text)
    if error_text:
        return Record(name, number, None, error_text)
    may_be_deep = text.count("[") + text.count("{") > MAX_RECORD_DEPTH
    if may_be_deep and is_deep(value, MAX_RECORD_DEPTH):
        return Record(name, number, None, TOO_DEEP, "too_large")
    return _check_record(value, name, number, len(text))


def _parse_text(text: str) -> tuple[object, str]:
    """Return the value of a JSON text and an empty error, or None and the error."""
    try:
        return parse_json(text), ""
    except ValueError as error:
        return None, f"not JSON: {error!s:.120}"


def _check_record(value: object, name: str, number: int, size: int) -> Record:
    if not isinstance(value, dict):
        error = f"a record must be an object, got {show(value)}"
        return Record(name, number, None, error, "wrong_type")
    return Record(name, number, value, size=size)


# One long JSON list, `[...]` or `{"samples": [...]}`, as ijson's events. Not `load_dataset("json",
# field="samples")`: it reads the whole file and derives one schema for all samples.


class _LineReader:
    """A file that ijson reads line by line, so that an error lies in the line that was read last.

    Attributes:
        line: the number of the line that was read last, from 1.
        start: the position of the first byte that was read last.
        position: the position after the last byte that was read.
        last_event: `position` at ijson's last event; the token after it is incomplete.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.line, self.start, self.position, self.last_event = 1, 0, 0, 0
        self._file = file
        self._ends_line = False

    def read(self, size: int) -> bytes:
        """Read the next line, or its next part.

        Raises:
            ValueError: when a single token, such as a text, is longer than a record may be.
        """
        if self.position - self.last_event > MAX_RECORD:
            raise ValueError(f"a record may have {MAX_RECORD} characters")
        text = self._file.readline(size)
        self.start, self.position = self.position, self.position + len(text)
        if text:
            self.line += self._ends_line
            self._ends_line = text.endswith(b"\n")
        return text.removeprefix(codecs.BOM_UTF8) if self.start == 0 else text


def _read_list(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        reader = _LineReader(file)
        try:
            yield from _list_elements(reader, path.name)
        except (ijson.JSONError, ArithmeticError, ValueError, SystemError) as error:
            # Only the first line: ijson shows the text around the error, at times as bytes' repr.
            what = re.split(r"\n|\\n", str(error).removeprefix("b'"))[0]
            if isinstance(error, SystemError):  # ijson's C code forgets Python's own ValueError
                what = "an integer has too many digits"
            raise DataError(
                f"input {path} is broken at line {reader.line} (bytes {reader.start} to "
                f"{reader.position}): {what:.120}; mend it, or write JSON Lines, of which a broken "
                "line costs one record"
            ) from error


def _enter_list(events: JsonEvents) -> bool:
    """Read on to the list of records, the outermost one or the one under a key of LIST_KEYS."""
    depth, key = 0, None
    for event, value in events:
        if event == "start_array" and (depth == 0 or (depth == 1 and key in LIST_KEYS)):
            return True
        depth += event.startswith("start_") - event.startswith("end_")
        if depth == 0:
            return False
        if depth == 1 and event == "map_key":
            key = value
    return False


def _list_elements(reader: _LineReader, name: str) -> Iterator[Record]:
    """Build the elements of the list; one that is too large or too deep is yielded as an error."""
    events = _plain_events(reader)
    if not _enter_list(events):
        raise ValueError("the file holds no list of records")
    number = depth = start = 0
    error, builder = "", ijson.ObjectBuilder()
    for event, value in events:
        if depth == 0:
            if event == "end_array":
                break
            number, start = number + 1, reader.position
            error, builder = "", ijson.ObjectBuilder()
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > MAX_RECORD_DEPTH + 1:  # the record itself is the first level
            error = TOO_DEEP
        elif reader.position - start > MAX_RECORD:
            error = error or f"a record may have {MAX_RECORD} characters"
        if error:
            builder = ijson.ObjectBuilder()  # drop the incomplete element to free its memory
        else:
            builder.event(event, value)
        if depth == 0 and error:
            yield Record(name, number, None, error, "too_large")
        elif depth == 0:
            yield _check_record(builder.value, name, number, reader.position - start)
    for _ in events:  # also check the JSON after the list
        pass


def _plain_events(reader: _LineReader) -> JsonEvents:
    for event, value in ijson.basic_parse(reader):
        reader.last_event = reader.position
        # Through Decimal, because ijson's `use_float` refuses integers of more than 64 bits.
        yield event, float(value) if isinstance(value, Decimal) else value


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "lines": _read_lines,
    "list": _read_list,
    "parquet": read_rows,
}
