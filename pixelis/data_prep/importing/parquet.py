"""Read the rows of a user's parquet file in bounded memory, even if its metadata is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelis.data.images import MAX_BYTES
from pixelis.data_prep.importing.record import Record

# A row group with more bytes per row on average is refused: no image may be so large.
MAX_ROW = MAX_BYTES
ROWS_AT_ONCE = 32
BYTES_AT_ONCE = 256 << 20
SMALL_BATCH = 4 << 20
# Above BYTES_AT_ONCE, what is so many times larger than on disk: text and pixels are at most 20.
MAX_RATIO = 200


def read_rows(path: Path) -> Iterator[Record]:
    """Read the rows of a parquet file as records; a row group that is too large is one error."""
    # Not `load_dataset("parquet", streaming=True)`: it fetches whole row groups ahead; on 400 MB of
    # photographs that took 1,830 MB of memory and 4.2 s, this 500 MB and 0.3 s.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        number = 0
        # By row group: a batch over several would need the memory of all of them.
        for group in range(file.metadata.num_row_groups):
            described = file.metadata.row_group(group)
            if detail := _too_large(described):
                yield Record(path.name, number + 1, None, detail, "too_large")
                number += described.num_rows
                continue
            rows = _rows_at_once(described)
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                sizes = _row_sizes(batch)
                for row, size in zip(batch.to_pylist(), sizes, strict=True):
                    number += 1
                    yield Record(path.name, number, _plain(row), size=size)


def _columns(group: pq.RowGroupMetaData) -> list[pq.ColumnChunkMetaData]:
    return [group.column(number) for number in range(group.num_columns)]


def _too_large(group: pq.RowGroupMetaData) -> str:
    """Return why a row group is refused, by the sizes in the file; empty if it may be read."""
    columns = _columns(group)
    size = sum(column.total_uncompressed_size for column in columns)
    if size > MAX_ROW * max(1, group.num_rows):  # an empty group has a few bytes too
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
    """Return how many rows to decode together, so that they stay below BYTES_AT_ONCE at the worst.

    A row holds at most all of its group; where values are numbers in a dictionary, each may be the
    same large one. Without a dictionary all rows together are no more than the group.
    """
    columns = _columns(group)
    size: int = sum(column.total_uncompressed_size for column in columns)
    if size <= BYTES_AT_ONCE and not any(column.has_dictionary_page for column in columns):
        return ROWS_AT_ONCE
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, size)))


def _row_sizes(batch: pa.RecordBatch) -> list[int]:
    """Return the bytes of each row; for a small batch their mean, which is faster."""
    if batch.nbytes <= SMALL_BATCH:
        return [batch.nbytes // max(1, batch.num_rows)] * batch.num_rows
    return [batch.slice(row, 1).nbytes for row in range(batch.num_rows)]


def _plain(value: Any) -> Any:
    """Convert a row to JSON values; Arrow returns maps as lists of pairs."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(inner, tuple) and len(inner) == 2 for inner in value):
            return {str(key): _plain(inner) for key, inner in value}
        return [_plain(inner) for inner in value]
    return value
