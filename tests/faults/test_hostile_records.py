"""A user's own records, broken in every way: a record is used rightly, or turned away with its
file, its line and the reason; its neighbours are not touched by what is wrong with it."""

import io
import json
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.faults.hostile import LONG, bounded, broken, deep, mutated, run_cases
from tests.faults.imports import take

CALL = {"name": "SEGMENT_OBJECT_AT", "arguments": {"x": 20, "y": 20}}
COTA = {
    "id": "s1",
    "task": "object_counting",
    "question": "How many?",
    "image": "rgb.png",
    "trajectory": [
        {"thought": "I look.", "operation": "ZOOM_IN", "arguments": {"bbox": [0, 0, 9, 9]}},
        {**CALL, "operation": "SEGMENT_OBJECT_AT", "thought": "On.", "result": {"area": 317}},
    ],
    "answer": "1",
    "ground_truth": "1",
}
COTA["trajectory"][1].pop("name")
MESSAGES = {
    "images": ["c.jpg"],
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "I look.", "tool_calls": [{"function": CALL}]},
        {"role": "tool", "content": '{"area": 1}'},
        {"role": "assistant", "content": "So.<answer>a circle</answer>"},
    ],
}
CONVERSATIONS = {
    "image": "c.jpg",
    "conversations": [
        {"from": "human", "value": "<image>What?"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "{}"},
        {"from": "gpt", "value": "A circle."},
    ],
}
RECORDS = {"cota": COTA, "messages": MESSAGES, "conversations": CONVERSATIONS}


def named(record, name):
    return record | {"id": name}


def as_lines(records):
    return "\n".join(json.dumps(record) for record in records).encode()


def as_list(records):
    return json.dumps({"samples": records}, indent=1).encode()


FILES = [
    write([named(record, f"{i}") for i in range(3)])
    for record in RECORDS.values()
    for write in (as_lines, as_list)
]


@pytest.fixture
def imported(folder, tmp_path, encoder):
    """Import bytes under a name; gives examples and rejections, or a refusal."""
    numbers = count()

    def read(name, content):
        # Beside the images, and apart from what an earlier case left.
        path = folder / name
        path.write_bytes(content)
        return take(path, tmp_path / f"out{next(numbers) % 2}", encoder)

    return read


@pytest.mark.parametrize("name", list(RECORDS))
@pytest.mark.parametrize("write", [as_lines, as_list])
def test_the_records_are_right_before_they_are_changed(imported, name, write):
    examples, rejections = imported(
        "some.json", write([named(RECORDS[name], f"{i}") for i in "ab"])
    )
    assert [example.id for example in examples] == ["a", "b"] and rejections == []


def test_broken_files(imported):
    def check(content):
        imported("some.json", content)

    run_cases("json", broken(FILES), check)


def neighbours_stay(imported, record, write):
    """Between two right records stands one that may be anything."""
    name = "conversations" if "conversations" in record else None
    name = name or ("messages" if "messages" in record else "cota")
    right = RECORDS[name]
    records = [named(right, "first neighbour"), record, named(right, "second neighbour")]
    examples, rejections = imported("some.json", write(records))
    if isinstance(examples, str):  # such as NaN in a long list, of which no rest is recovered
        assert write is as_list and "some.json is broken at line " in examples, examples
        return
    ids = [example.id for example in examples]
    assert ids[0] == "first neighbour" and ids[-1] == "second neighbour"
    assert all(rejection["line"] == 2 for rejection in rejections)
    assert len(rejections) == (len(ids) == 2)


def test_wrong_values(imported):
    def check(record):
        neighbours_stay(imported, record, as_lines)

    run_cases("json values", mutated([COTA]), check)


def test_wrong_turns(imported):
    def check(case):
        original, record, write = case
        kept = {name: record[name] for name in original if name in record}
        key = "messages" if "messages" in original else "conversations"
        neighbours_stay(imported, {key: None} | kept, write)

    strategy = st.sampled_from([MESSAGES, CONVERSATIONS]).flatmap(
        lambda record: st.tuples(
            st.just(record), mutated([record]), st.sampled_from([as_lines, as_list])
        )
    )
    run_cases("chat", strategy, check)


def as_parquet(records):
    """Columns by their own types; what Arrow cannot hold is JSON text."""
    columns = {}
    for name in {name: None for record in records for name in record}:
        column = [record.get(name) for record in records]
        try:
            columns[name or "empty"] = pa.array(column)
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            columns[name or "empty"] = pa.array([json.dumps(one) for one in column])
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.table(columns), buffer)
    except pa.ArrowNotImplementedError:  # a struct without a field
        texts = {name: [str(one) for one in column.to_pylist()] for name, column in columns.items()}
        pq.write_table(pa.table(texts), buffer)
    return buffer.getvalue()


def test_wrong_values_in_parquet(imported):
    def check(case):
        original, record = case
        imported("some.parquet", as_parquet([original, named(record, "b"), original]))

    strategy = st.sampled_from(list(RECORDS.values())).flatmap(
        lambda record: st.tuples(st.just(record), mutated([record]))
    )
    run_cases("parquet", strategy, check)


def test_broken_parquet(imported):
    originals = [as_parquet([record, named(record, "b")]) for record in RECORDS.values()]

    def check(content):
        imported("some.parquet", content)

    run_cases("parquet bytes", broken(originals), check)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"question": LONG * 11}, "too_large", "question may have 1000000 characters"),
        ({"question": "a\x00b"}, "characters", "got U+0000 at 1"),
        ({"question": "a\ud800b"}, "characters", "lone surrogates"),
        ({"answer": "1</answer><answer>2"}, "markup", "answer may not hold <answer>"),
        ({"provenance": {"a": deep(70)}}, "broken_json", "nested too deeply, more than 64"),
        ({"image": "../outside.png"}, "outside_folder", "lies outside the folder"),
        ({"image": "/etc/hostname"}, "outside_folder", "lies outside the folder"),
        ({"image": "link.png"}, "outside_folder", "lies outside the folder"),
        ({"image": "up/outside.png"}, "outside_folder", "lies outside the folder"),
        ({"image": "folder.png"}, "unreadable_image", "is not a file"),
        ({"image": "ring.png"}, "unreadable_image", "cannot be read"),
        ({"image": "http://example.org/a.png"}, "remote_image", "nothing is downloaded"),
        ({"image": "x" * 5000}, "unreadable_image", "cannot be read"),
        ({"id": "first neighbour"}, "duplicate_id", "and its content came before"),
    ],
    ids=range(14),
)
def test_what_is_turned_away_and_why(imported, changes, reason, detail):
    right = [named(COTA, "first neighbour"), named(COTA, "second neighbour")]
    records = [right[0], named(COTA, "wrong") | changes, right[1]]
    with bounded():
        examples, (rejection,) = imported("some.jsonl", as_lines(records))
    assert len(examples) == 2
    assert (rejection["file"], rejection["line"]) == ("some.jsonl", 2)
    assert rejection["reason"] == reason and detail in rejection["detail"]


def test_what_is_long_or_odd_and_right(imported):
    records = [
        named(COTA, "long") | {"question": LONG, "trajectory": []},
        named(COTA, "link") | {"image": "inside.png"},
        named(COTA, "other words") | {"question": "שלום? 你好 \u202e 🙂\tand\nmore"},
        named(COTA, "a large number") | {"answer": 10**400, "ground_truth": None},
    ]
    examples, rejections = imported("some.jsonl", as_lines(records))
    assert rejections == [] and len(examples) == 4
    assert examples[0].question == LONG.strip() and examples[3].answer == str(10**400)


@pytest.mark.parametrize(
    "content", [b"[" * 10**6, b'{"a":' * 10**6, b'["' * 10**6, b"\x00" * 10**6]
)
def test_a_million_brackets(imported, content):
    with bounded():
        refused, _ = imported("some.json", content)
    assert "some.json" in refused and len(refused) < 600


def test_a_record_nested_too_deep_costs_itself_alone(imported):
    inner = b'{"id": "x", "question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    right = [json.dumps(named(COTA, name)).encode() for name in ("a", "b")]
    with bounded():
        examples, (rejection,) = imported("some.jsonl", b"\n".join([right[0], inner, right[1]]))
    assert len(examples) == 2 and rejection["line"] == 2
    assert rejection["reason"] == "broken_json" and "nested too deeply" in rejection["detail"]
