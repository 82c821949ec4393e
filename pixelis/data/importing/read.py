"""Data files -> raw records, one at a time; what cannot be read comes as an error in its place."""

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelis.data.importing.json_list import MAX_RECORD, list_elements, parse_record
from pixelis.data.importing.record import Input, Record
from pixelis.data.importing.values import is_deep, show

# Above what a record needs (its turns, a call and MAX_DEPTH within) and far below what pickle can.
MAX_RECORD_DEPTH = 64
ROWS_AT_ONCE = 32


def read_records(source: Input) -> Iterator[Record]:
    """Every record of the input in order, read as they are asked for; memory stays flat."""
    for path, container in zip(source.files, source.containers, strict=True):
        yield from read_file(path, container, path.name)


def read_file(path: Path, container: str, name: str) -> Iterator[Record]:
    """The records of one file; an error of the file system comes as a last, broken record."""
    line = 0
    try:
        for record in READERS[container](path, name):
            line = record.line
            yield record
    # Arrow on a damaged file: also ValueError (names that are not UTF-8), and sizes beyond reason.
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        detail = f"the file cannot be read on: {error!s:.150}"
        yield Record(name, line + 1, None, detail)


def _read_lines(path: Path, name: str) -> Iterator[Record]:
    # Not `load_dataset("json")`: it parses blocks of lines, and one broken line ends the stream
    # before its block's first record.
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
                yield Record(name, number, None, detail, "too_large")
            elif line.strip():
                yield _parse_line(line, name, number)


def _parse_line(line: bytes, name: str, number: int) -> Record:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Record(name, number, None, f"the text is not UTF-8 ({error.reason})")
    return _parse(text, name, number)


def _read_list(path: Path, name: str) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, element in enumerate(list_elements(file), 1):
            if element.error:
                yield Record(name, number, None, element.error, element.reason)
            else:
                yield _parse(element.text, name, number)


def _parse(text: str, name: str, number: int) -> Record:
    value, error = parse_record(text)
    if error:
        return Record(name, number, None, error)
    if not isinstance(value, dict):
        error = f"a record must be an object, got {show(value)}"
        return Record(name, number, None, error, "wrong_type")
    if text.count("[") + text.count("{") > MAX_RECORD_DEPTH and is_deep(value, MAX_RECORD_DEPTH):
        error = f"a record may be nested {MAX_RECORD_DEPTH} deep"
        return Record(name, number, None, error, "too_large")
    return Record(name, number, value)


def _read_parquet(path: Path, name: str) -> Iterator[Record]:
    # Not `load_dataset("parquet", streaming=True)`: it fetches whole row groups ahead; on 400 MB of
    # photographs that took 1,830 MB of memory and 4.2 s, this 500 MB and 0.3 s.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        number = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield Record(name, number, _plain(row))


def _plain(value: Any) -> Any:
    """Arrow's maps come as lists of pairs; everything else is as JSON would have it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(inner, tuple) and len(inner) == 2 for inner in value):
            return {str(key): _plain(inner) for key, inner in value}
        return [_plain(inner) for inner in value]
    return value


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    "lines": _read_lines,
    "list": _read_list,
    "parquet": _read_parquet,
}
