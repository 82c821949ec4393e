"""Data files -> raw records, one at a time; what cannot be read comes as an error in its place."""

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelis.data.images import MAX_BYTES
from pixelis.data_prep.importing.json_list import MAX_RECORD, list_elements, parse_record
from pixelis.data_prep.importing.record import Input, Record
from pixelis.data_prep.importing.values import is_deep, show

# Above what a record needs (its turns, a call and MAX_DEPTH within) and far below what pickle can.
MAX_RECORD_DEPTH = 64
# A row group whose rows hold more on average is refused unread: no image may be so large.
MAX_ROW = MAX_BYTES
ROWS_AT_ONCE = 32
BYTES_AT_ONCE = 256 << 20
SMALL_BATCH = 4 << 20
# Above BYTES_AT_ONCE, what is so many times larger than on disk: text and pixels are at most 20.
MAX_RATIO = 200


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
    return Record(name, number, value, size=len(text))


def _read_parquet(path: Path, name: str) -> Iterator[Record]:
    # Not `load_dataset("parquet", streaming=True)`: it fetches whole row groups ahead; on 400 MB of
    # photographs that took 1,830 MB of memory and 4.2 s, this 500 MB and 0.3 s.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        number = 0
        # By row group: batches that reach over several would put their sizes together.
        for group in range(file.metadata.num_row_groups):
            described = file.metadata.row_group(group)
            if detail := _too_large(described):
                yield Record(name, number + 1, None, detail, "too_large")
                number += described.num_rows
                continue
            rows = _rows_at_once(described)
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                sizes = _row_sizes(batch)
                for row, size in zip(batch.to_pylist(), sizes, strict=True):
                    number += 1
                    yield Record(name, number, _plain(row), size=size)


def _columns(group: pq.RowGroupMetaData) -> list[pq.ColumnChunkMetaData]:
    return [group.column(number) for number in range(group.num_columns)]


def _too_large(group: pq.RowGroupMetaData) -> str:
    """Why a row group is not read, by what its file says of it; empty where it is."""
    columns = _columns(group)
    size = sum(column.total_uncompressed_size for column in columns)
    if size > MAX_ROW * max(1, group.num_rows):  # an empty one has a few bytes too
        return (
            f"a row may have {MAX_ROW} bytes, got a row group of {group.num_rows} rows and "
            f"{size} bytes"
        )
    on_disk = sum(column.total_compressed_size for column in columns)
    if size > max(BYTES_AT_ONCE, MAX_RATIO * on_disk):
        return (
            f"a row group of more than {BYTES_AT_ONCE} bytes may be {MAX_RATIO} times as large as "
            f"in the file, got {size} bytes from {on_disk}"
        )
    return ""


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """How many rows are decoded together: as many as stay below BYTES_AT_ONCE at the worst.

    A row holds at most all of its group; where values are numbers in a dictionary, each may be the
    same large one. Without a dictionary all rows together are no more than the group.
    """
    columns = _columns(group)
    size: int = sum(column.total_uncompressed_size for column in columns)
    if size <= BYTES_AT_ONCE and not any(column.has_dictionary_page for column in columns):
        return ROWS_AT_ONCE
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, size)))


def _row_sizes(batch: pa.RecordBatch) -> list[int]:
    """What each row takes; of a small batch the mean, which is had at once."""
    if batch.nbytes <= SMALL_BATCH:
        return [batch.nbytes // max(1, batch.num_rows)] * batch.num_rows
    return [batch.slice(row, 1).nbytes for row in range(batch.num_rows)]


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
