import pyarrow as pa
import pytest

from pixelis.data.example import SAMPLE_TYPES, SPLITS
from pixelis.data.store import SCHEMA
from pixelis.data_prep.columns import Columns, RowsFile
from pixelis.data_prep.rows import RowInfo


def info(index, task="t", **changes):
    plain = {"key": index, "task": task, "sample_type": SAMPLE_TYPES[0], "split": SPLITS[0]}
    parts = {"a": index / 10, "b": 0.5}
    return RowInfo(
        **plain | {"score": index / 100, "components": parts, "num_objects": 3} | changes
    )


def batch(*ids):
    rows = [{name: None for name in SCHEMA.names} | {"id": one} for one in ids]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def test_columns_give_back_what_was_added():
    columns = Columns()
    columns.add(info(1, "counting", sample_type="trap_logical", split="test"))
    columns.add(info(2**64 - 1, "reading", score=0.25, num_objects=70_000))
    assert len(columns) == 2
    assert list(columns.keys) == [1, 2**64 - 1]
    assert list(columns.num_objects) == [3, 70_000]
    assert columns.column("task") == ["counting", "reading"]
    first, second = columns.rows(["simple", "hard"])
    assert first == {
        "task": "counting",
        "sample_type": "trap_logical",
        "split": "test",
        "difficulty": "simple",
        "score": 0.01,
        "components": {"a": 0.1, "b": 0.5},
    }
    assert (second["difficulty"], second["score"]) == ("hard", 0.25)


def test_every_example_may_have_a_task_and_a_type_of_its_own():
    columns = Columns()
    for index in range(70_000):
        columns.add(info(index, f"task {index}"))
    columns.add(info(1, sample_type="of the user's"))
    assert columns.column("task")[::35_000] == ["task 0", "task 35000", "t"]
    assert columns.column("sample_type")[-1] == "of the user's"


def test_batches_come_back_in_order_and_empty_ones_are_left_out(tmp_path):
    with RowsFile(tmp_path) as rows:
        for ids in (["a", "b"], [], ["c"]):
            rows.write(batch(*ids))
    for _ in range(2):
        assert [found.column("id").to_pylist() for found in rows.read()] == [["a", "b"], ["c"]]


def test_the_file_is_closed_when_writing_stops(tmp_path):
    with pytest.raises(RuntimeError), RowsFile(tmp_path) as rows:
        rows.write(batch("a"))
        raise RuntimeError
    assert [found.num_rows for found in rows.read()] == [1]
