import io
import json
import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixelis.data_prep.importing import (
    RejectedError,
    convert,
    files,
    open_input,
    read_records,
)
from pixelis.errors import DataError

COTA = {"question": "What?", "answer": "A."}
CHAT = {"messages": [{"role": "user", "content": "What?"}]}
SHARED = {"conversations": [{"from": "human", "value": "What?"}]}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def as_parquet(*records):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), buffer)
    return buffer.getvalue()


def read_all(path, **options):
    source = open_input(path, **options)
    return source, list(read_records(source))


# What is told by content


@pytest.mark.parametrize(
    ("record", "record_format"), [(COTA, "cota"), (CHAT, "messages"), (SHARED, "conversations")]
)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.data"])
def test_container_and_format_are_told_by_content(tmp_path, record, record_format, name):
    contents = {
        "lines": [lines(record, record), "\ufeff\n" + lines(record, record)],
        "list": [
            json.dumps([record, record]),
            json.dumps({"samples": [record, record]}),
            json.dumps({"meta": {"samples": [1]}, "n": [], "data": [record, record]}, indent=1),
            f'{{"samples": [\n{lines(record).strip()},\n{lines(record).strip()}\n]}}',
        ],
        "parquet": [as_parquet(record, record)],
    }
    for container, variants in contents.items():
        for content in variants:
            source, records = read_all(written(tmp_path, name, content))
            assert (source.format, [*source.files.values()]) == (record_format, [container])
            assert [r.data for r in records] == [record, record]
            assert {r.file for r in records} == {name}
            assert source.folder == tmp_path


def test_lines_are_counted_as_an_editor_does(tmp_path):
    _, records = read_all(written(tmp_path, "x.jsonl", "\n" + lines(COTA) + "\n\n" + lines(COTA)))
    assert [record.line for record in records] == [2, 5]
    _, records = read_all(written(tmp_path, "x.json", json.dumps({"samples": [COTA, COTA]})))
    assert [record.line for record in records] == [1, 2]


def test_a_folder_is_all_its_data_files_in_order(tmp_path):
    written(tmp_path, "b.jsonl", lines(COTA))
    written(tmp_path, "a.json", json.dumps({"samples": [COTA]}))
    written(tmp_path, "c.parquet", as_parquet(COTA))
    for other in ("readme.txt", ".hidden.json", "summary.json", "rejected.jsonl"):
        written(tmp_path, other, "not data")
    source, records = read_all(tmp_path)
    assert [r.file for r in records] == ["a.json", "b.jsonl", "c.parquet"]
    assert source.folder == tmp_path
    assert source.describe() == "3 file(s) of lines, list, parquet; format cota"


def test_format_and_image_folder_can_be_named(tmp_path):
    path = written(tmp_path, "x.jsonl", lines({**CHAT, **SHARED}))
    assert open_input(path).format == "messages"
    (tmp_path / "pictures").mkdir()
    source = open_input(path, input_format="conversations", images=tmp_path / "pictures")
    assert (source.format, source.folder) == ("conversations", tmp_path / "pictures")
    assert source.describe() == "1 file(s) of lines; format conversations"


def test_what_cannot_be_told_is_an_error(tmp_path):
    def fails(message, path=tmp_path / "x.json", **options):
        with pytest.raises(DataError) as error:
            open_input(path, **options)
        assert message in str(error.value)

    path = written(tmp_path, "x.json", lines({"a": 1, "b": 2}))
    fails("the format of ", path)
    fails("(a record has the keys a, b); name it as input_format: cota (question, image", path)
    fails(f"image_folder {tmp_path / 'gone'} is not a folder", images=tmp_path / "gone")
    fails(f"input {tmp_path / 'gone'} does not exist; name a file", tmp_path / "gone")
    for content in (
        "",
        "  \n",
        "text\nmore text",
        "{",
        '{"a": 1',
        "3\n4\n",
        "\0",
    ):
        written(tmp_path, "x.json", content)
        fails(f"input {tmp_path / 'x.json'} holds no records; it must be JSON with a list")
    written(tmp_path, "x.json", "[]")
    fails("cannot be told (it is empty)")
    written(tmp_path, "x.json", b"PAR1 and no more")
    fails("cannot be told (the file cannot be read on: ")
    empty = tmp_path / "empty"
    empty.mkdir()
    fails("holds no data file; a data file ends in .json, .jsonl, .ndjson, .parquet", empty)
    (empty / "out.json").symlink_to(path)
    fails(f"{empty / 'out.json'} is a link that leaves the folder", empty)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-be", "UTF-32-BE"),
    ],
)
@pytest.mark.parametrize("content", [lines(COTA, COTA), json.dumps([COTA, COTA], indent=1)])
def test_text_of_two_or_four_bytes_is_refused_by_name(tmp_path, encoding, name, content):
    path = written(tmp_path, "x.json", content.encode(encoding))
    with pytest.raises(DataError, match=f"^input {path} looks like {name} text; save it as UTF-8$"):
        open_input(path)


def test_a_file_in_an_older_encoding_is_not_called_empty(tmp_path):
    text = json.dumps({"question": "Où?", "answer": "là"}, ensure_ascii=False) + "\n"
    path = written(tmp_path, "x.jsonl", (text * 3).encode("latin-1"))
    message = rf"^input {path} is not UTF-8 \(byte 0xf9 at 15\); save it as UTF-8$"
    with pytest.raises(DataError, match=message):
        open_input(path)


@pytest.mark.parametrize("content", [lines(COTA, COTA), json.dumps([COTA, COTA])])
def test_a_mark_of_utf_8_is_no_part_of_the_text(tmp_path, content):
    _, records = read_all(written(tmp_path, "x.json", content.encode("utf-8-sig")))
    assert [record.data for record in records] == [COTA, COTA]


@pytest.mark.parametrize(
    ("record", "record_format"),
    [
        ({"messages": json.dumps(CHAT["messages"])}, "messages"),
        ({"conversations": json.dumps(SHARED["conversations"])}, "conversations"),
        ({"prompt": json.dumps(CHAT["messages"]), "completion": "[]"}, "messages"),
    ],
)
def test_a_chat_kept_as_json_text_is_told_by_content(tmp_path, record, record_format):
    for name, content in (("a.jsonl", lines(record)), ("b.parquet", as_parquet(record))):
        assert open_input(written(tmp_path, name, content)).format == record_format


def test_files_of_two_formats_are_an_error(tmp_path):
    written(tmp_path, "a.jsonl", lines(COTA))
    written(tmp_path, "b.jsonl", lines(CHAT))
    with pytest.raises(DataError, match=r"a.jsonl holds cota and .*b.jsonl holds messages; import"):
        open_input(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = written(tmp_path, "x.jsonl", lines(COTA))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match="x.jsonl cannot be read: Permission denied"):
        open_input(path)


# What is broken costs itself alone


def test_a_broken_line_does_not_stop_the_others(tmp_path):
    bad = [
        b'{"question": "cut', b"[1, 2]", b"3", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 10**5,
        b'{"a": ' + b"9" * 5000 + b"}", b'{"a": ' * 80 + b"1" + b"}" * 80, b"\x00",
    ]  # fmt: skip
    good = lines(COTA).encode()
    path = written(tmp_path, "x.jsonl", good + b"".join(b + b"\n" + good for b in bad))
    _, records = read_all(path)
    assert [r.line for r in records] == list(range(1, 2 * len(bad) + 2))
    assert [r.data for r in records[::2]] == [COTA] * (len(bad) + 1)
    texts = [
        "not JSON", "must be an object, got [1, 2]", "must be an object, got 3", "NaN is not",
        "not JSON: 'utf-8' codec can't", "nested too deeply", "not JSON: Exceeds the limit",
        "not JSON: nested too deeply, more than 64", "not JSON",
    ]  # fmt: skip
    for record, text in zip(records[1::2], texts, strict=True):
        assert record.data is None and text in record.error
    reasons = [record.reason for record in records[1::2]]
    assert reasons == ["broken_json", "wrong_type", "wrong_type", *["broken_json"] * 6]


def test_a_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD", 100)
    path = written(tmp_path, "x.jsonl", lines(COTA, {"question": "x" * 3000000}, COTA))
    _, (one, long, two) = read_all(path)
    assert one.data == two.data == COTA and (long.line, two.line) == (2, 3)
    assert (long.reason, long.error) == ("too_large", "a line may have 100 bytes")


# One long list


def read_list(folder, text):
    source = open_input(written(folder, "x.json", text), input_format="cota")
    assert [*source.files.values()] == ["list"]
    return list(read_records(source))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("holder", [None, "samples"])
def test_a_list_gives_its_values_as_json_does(tmp_path, indent, holder):
    awkward = {"question": 'a "quoted" \\ {[,]} é\U0001f600', "answer": {"x": ["]", '\\"']}}
    numbers = [0, -1, 2**62, 0.1, 1e-7, 1.0, 123456789.123456789, 1e300, -2.5e-300, True, None]
    mixed = [COTA, awkward, {"question": 3}, {"question": [1, {"a": []}]}, {"answer": numbers}]
    text = json.dumps({holder: mixed} if holder else mixed, ensure_ascii=holder is None)
    records = read_list(tmp_path, json.dumps(json.loads(text), indent=indent))
    assert [repr(record.data) for record in records] == [repr(value) for value in mixed]
    assert [record.line for record in records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[{"a": 1},\n{"a" 2},\n{"a": 3}]', 2, "object key and value must be separated"),
        ('[{"a": 1},\n\n{"a": NaN}]', 3, "invalid char in json text"),
        ('[{"a": 1},\n{"a": "cut', 2, "premature EOF"),
        ('{"samples": [{"a": 1}', 1, "premature EOF"),
        ('[{"a": 1}}', 1, "after array element"),
        ('[{"a": 1},\n]', 2, "unallowed token"),
        ('[{"a": 1}]\n{"a": 2}', 2, "trailing garbage"),
        ('{"samples": [{"a": 1}],\n "n": 1', 2, "premature EOF"),
        (b'[{"a": 1},\n{"a": "\xff"}]', 2, "invalid bytes in UTF8 string"),
        ('[{"a": 1},\n{"a": 1e9999999999999999999}]', 2, "overflow"),
        ('[{"a": 1},\n' + '{"a": ' * 10**5, 2, "nested too deeply, more than 64"),
        ('[{"a": 1},\n{"a": ' + "9" * 5000 + "}]", 2, "integer overflow"),
    ],
)
def test_a_broken_list_is_refused_with_its_line(tmp_path, text, line, what):
    message = rf"x.json is broken at line {line} \(before byte \d+\): .*{what}.*; mend it, or write"
    with pytest.raises(DataError, match=message) as error:
        read_list(tmp_path, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("element", "reason", "error"),
    [
        ("3", "wrong_type", "a record must be an object, got 3"),
    ],
)
def test_an_element_that_is_no_record_costs_itself_alone(
    tmp_path, monkeypatch, element, reason, error
):
    monkeypatch.setattr(files, "MAX_RECORD", 1000)
    one, bad, two = read_list(tmp_path, f'[{{"a": 1}},\n{element},\n{{"a": 2}}\n]  \n')
    assert (one.data, two.data, two.line) == ({"a": 1}, {"a": 2}, 3)
    assert (bad.data, bad.line, bad.reason) == (None, 2, reason) and bad.error.startswith(error)


def test_a_single_text_without_end_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD", 100_000)
    with pytest.raises(DataError, match="line 1 .*: a record may have 100000 characters; mend"):
        read_list(tmp_path, '[{"a": "' + "x" * 1_000_000)


def test_what_is_no_record_may_be_long(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD", 1000)
    log = json.dumps({"log": ["a line"] * 1000}, indent=1)
    (one,) = read_list(tmp_path, f'{{"samples": [{{"a": 1}}],\n"before": {log}}}')
    assert one.data == {"a": 1}


def test_an_empty_list_holds_no_record(tmp_path):
    assert read_list(tmp_path, '{"samples": []}') == []


# Parquet


def test_a_parquet_file_that_breaks_off(tmp_path):
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([COTA | {"pad": str(n) * 50} for n in range(4000)])
    pq.write_table(table, buffer, row_group_size=1000, compression="none", use_dictionary=False)
    content = bytearray(buffer.getvalue())
    middle = len(content) // 2
    content[middle : middle + 40_000] = b"\xff" * 40_000
    _, records = read_all(written(tmp_path, "x.parquet", bytes(content)))
    assert records[0].data["question"] == "What?" and records[-1].data is None
    assert records[-1].error.startswith("the file cannot be read on: ")
    assert [r.line for r in records] == list(range(1, len(records) + 1))


def test_parquet_with_embedded_images_and_maps(tmp_path, folder):
    held = (folder / "c.jpg").read_bytes()
    features = datasets.Features(
        {"images": [datasets.Image()], "question": datasets.Value("string")}
    )
    rows = {"images": [[{"bytes": held, "path": None}]], "question": ["What?"]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "x.parquet")
    _, (record,) = read_all(tmp_path / "x.parquet")
    assert record.data["images"] == [{"bytes": held, "path": None}]
    column = pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"question": ["What?"], "arguments": column})
    pq.write_table(table, tmp_path / "m.parquet")
    _, (record,) = read_all(tmp_path / "m.parquet")
    assert record.data["arguments"] == {"x": 1}


PEAK = """
import sys
from pathlib import Path
from pixelis.config import DataPrepConfig
from pixelis.data_prep.prepare import prepare_folder
from pixelis.errors import UserError
try:
    prepare_folder(DataPrepConfig(input=sys.argv[1], num_workers=1), Path(sys.argv[2]))
except UserError as error:
    print(error)
# Not `ru_maxrss`, which begins with the memory of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def wide(path, pixels, groups, **options):
    """A parquet file of row groups of such images each, small on disk."""
    table = pa.Table.from_pylist([COTA | {"image": {"bytes": held, "path": ""}} for held in pixels])
    with pq.ParquetWriter(path, table.schema, compression="zstd", **options) as writer:
        for _ in range(groups):
            writer.write_table(table)
    return path


@pytest.mark.integration
def test_rows_that_are_large_are_not_decoded_together(tmp_path):
    path = wide(tmp_path / "x.parquet", [b"\x89PNG" + bytes(60 << 20)], 40)
    assert path.stat().st_size < 200_000
    out = subprocess.run(
        [sys.executable, "-c", PEAK, path, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert out[0].startswith("40 of 40 records") and "40 unreadable_image" in out[0]
    assert int(out[1]) < 2 << 20  # kilobytes; it was 5.4 GB


@pytest.mark.parametrize("dictionary", [True, False])
def test_what_is_decoded_at_once_is_bounded(tmp_path, monkeypatch, dictionary):
    taken = []
    iterate = pq.ParquetFile.iter_batches

    def watched(*args, **options):
        for batch in iterate(*args, **options):
            taken.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    monkeypatch.setattr(files, "BYTES_AT_ONCE", 8 << 20)
    # The same pixels in every row: in the file's dictionary they stand once.
    rows = [bytes(1 << 20)] * 40 if dictionary else [bytes([n]) * (1 << 16) for n in range(40)]
    path = wide(tmp_path / "x.parquet", rows, 2, use_dictionary=dictionary)
    _, records = read_all(path)
    assert [len(r.data["image"]["bytes"]) for r in records] == [len(rows[0])] * 80
    assert [r.line for r in records] == list(range(1, 81))
    assert max(taken) <= 8 << 20
    assert all(r.size > len(rows[0]) / 2 for r in records)


def test_a_row_group_that_swells_is_left_out_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BYTES_AT_ONCE", 1 << 20)
    path = tmp_path / "x.parquet"
    small = pa.Table.from_pylist([COTA] * 3)
    with pq.ParquetWriter(path, small.schema, compression="zstd") as writer:
        writer.write_table(small)
        writer.write_table(pa.Table.from_pylist([COTA, COTA | {"answer": "x" * (3 << 20)}]))
        writer.write_table(small)
    _, records = read_all(path)
    assert [r.line for r in records] == [1, 2, 3, 4, 6, 7, 8]
    refused = records[3]
    assert (refused.data, refused.reason) == (None, "too_large")
    assert "may be 200 times as large as in the file, got 3" in refused.error
    with pytest.raises(RejectedError, match="200 times as large"):
        convert(refused, folder=tmp_path, record_format="cota")


SCRIPT = """
import sys
from pathlib import Path
from pixelis.data_prep.importing import open_input, read_records
source = open_input(Path(sys.argv[1]))

def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))

before = peak()
count = sum(1 for _ in read_records(source))
print(count, peak() - before)
"""


@pytest.mark.parametrize("kind", ["lines", "list", "parquet"])
@pytest.mark.integration
def test_memory_stays_flat(tmp_path, kind):
    path = tmp_path / "x.data"
    record = json.dumps(COTA | {"pad": "x" * 4000})
    if kind == "parquet":
        batch = pa.Table.from_pylist([COTA | {"pad": str(n) * 800} for n in range(1000)])
        with pq.ParquetWriter(path, batch.schema) as writer:
            for _ in range(20):
                writer.write_table(batch)
    else:
        opening, between, closing = ("", "\n", "\n") if kind == "lines" else ("[", ",", "]")
        path.write_text(opening + between.join([record] * 20_000) + closing, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True
    )
    count, grown = map(int, done.stdout.split())
    assert count == 20_000 and grown < 40_000  # KiB, of 80 MB


def test_the_text_of_a_rejection_is_one_bounded_line():
    long = RejectedError("no_image", "a\nb \ud800" + "y" * 999).at("a", 1)
    assert (long.file, long.line, long.reason) == ("a", 1, "no_image")
    assert long.detail.startswith("a b \\ud800yyy") and len(long.detail) == 300
