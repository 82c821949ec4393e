import json
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from pixelis.curriculum.difficulty import COMPONENTS
from pixelis.data.store import ROWS_IN_BATCH
from pixelis.data_prep import streams
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.importing import Rejection, open_input
from pixelis.data_prep.rows import RowBuilder
from pixelis.data_prep.streams import (
    MAX_SALT,
    RECORDS_IN_CHUNK,
    GeneratedStream,
    ImportedStream,
    Importer,
    PlannedExample,
)
from pixelis.errors import DataError

BUILDER = RowBuilder((0.12, 0.12), "composite", dict.fromkeys(COMPONENTS, 0.2))


class FakeGenerate:
    """One example under the ids that a function of index and salt gives."""

    def __init__(self, name_of, **source):
        self.name_of = name_of
        self.source = type("FakeSource", (), {"name": "fake", **source})()
        self.asked = []

    def __call__(self, plans, salt=0):
        self.asked += [(plan.index, salt) for plan in plans]
        example = generate_example(seed=0, index=0, task="object_counting", sample_type="positive")
        examples = (replace(example, id=self.name_of(plan.index, salt)) for plan in plans)
        return BUILDER.build(examples, [])


def plans(count):
    return [PlannedExample(index, "object_counting", "positive") for index in range(count)]


def ids(stream, folder):
    return [name for made in stream.read(folder) for name in made.batch.column("id").to_pylist()]


# Made from a source


def test_chunks_hold_every_plan_once(tmp_path):
    generate = FakeGenerate(lambda index, salt: f"{index}")
    stream = GeneratedStream(generate, plans(2 * ROWS_IN_BATCH + 1), 1)
    assert stream.total == 2 * ROWS_IN_BATCH + 1
    sizes = [made.batch.num_rows for made in stream.read(tmp_path)]
    assert sizes == [ROWS_IN_BATCH, ROWS_IN_BATCH, 1]
    assert list(tmp_path.iterdir()) == [], "nothing was rejected"


def test_an_example_that_came_before_is_made_anew_until_it_differs(tmp_path):
    # Number 2 is as number 0 twice, in the same chunk; number 60 is as number 1, in another.
    names = {(2, 0): "0", (2, 1): "1", (60, 0): "1"}
    generate = FakeGenerate(lambda index, salt: names.get((index, salt), f"{index}.{salt}"[:9]))
    names |= {(0, 0): "0", (1, 0): "1"}
    found = ids(GeneratedStream(generate, plans(70), 1), tmp_path)
    assert len(found) == 70 == len(set(found))
    assert {"2.2", "60.1"} < set(found)
    assert Counter(index for index, _ in generate.asked).most_common(2) == [(2, 3), (60, 2)]


def test_a_source_that_is_exhausted_says_of_what(tmp_path):
    generate = FakeGenerate(lambda index, salt: str(index % 7))
    stream = GeneratedStream(generate, plans(20), 1)
    message = (
        "^the source fake has too few different object_counting examples of type positive: "
        f"number 8 of 20 came out as an earlier one {MAX_SALT + 1} times; "
    )
    with pytest.raises(DataError, match=message):
        ids(stream, tmp_path)


def test_what_a_source_refused_of_its_own_is_written_and_counted(tmp_path):
    rejections = [Rejection("a.json", n, "unknown_image", "no image") for n in (4, 9)]
    generate = FakeGenerate(lambda index, salt: f"{index}", rejections=rejections, num_records=50)
    stream = GeneratedStream(generate, plans(3), 1)
    assert len(ids(stream, tmp_path)) == 3
    assert (stream.rejected, stream.num_records) == ({"unknown_image": 2}, 50)
    lines = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["line"] for line in lines] == [4, 9]
    assert stream.describe_source() == {"name": "fake", "tasks_left_out": []}


# Imported


@pytest.fixture
def write(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(source / f"{number}.png")

    def write(records):
        lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
        (source / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
        found = open_input(source / "some.jsonl", input_format="cota")
        return ImportedStream(Importer(source, found.format, BUILDER), found, 1)

    return write


def record(number, **changes):
    plain = {"question": "What?", "image": f"{number % 8}.png", "answer": str(number)}
    return {"id": f"r{number}", **plain, **changes}


def rejected(folder):
    lines = (folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_record_is_read_once_in_order(write, tmp_path):
    count = 2 * RECORDS_IN_CHUNK + 3
    stream = write([record(number) for number in range(count)])
    assert ids(stream, tmp_path) == [f"r{number}" for number in range(count)]
    assert (stream.num_records, stream.rejected, rejected(tmp_path)) == (count, {}, [])
    assert stream.describe_source() == {
        "name": "input",
        "format": "cota",
        "files": ["some.jsonl"],
        "records": count,
    }


def test_rejections_have_file_line_and_reason_and_are_counted(write, tmp_path):
    stream = write([record(0), "{broken", record(2, answer=None), record(3), record(4, answer="")])
    assert ids(stream, tmp_path) == ["r0", "r3"]
    found = rejected(tmp_path)
    assert [(one["file"], one["line"], one["reason"]) for one in found] == [
        ("some.jsonl", 2, "broken_json"),
        ("some.jsonl", 3, "no_answer"),
        ("some.jsonl", 5, "no_answer"),
    ]
    assert all(one["detail"] for one in found)
    assert stream.rejected == {"no_answer": 2, "broken_json": 1} and stream.num_records == 5


@pytest.mark.parametrize("distance", [1, 3 * RECORDS_IN_CHUNK])
def test_the_second_of_two_with_the_same_id_is_rejected(write, tmp_path, distance):
    records = [record(number) for number in range(distance)]
    stream = write([*records, record(0, answer="another")])
    assert len(ids(stream, tmp_path)) == distance
    (found,) = rejected(tmp_path)
    assert (found["line"], found["reason"]) == (distance + 1, "duplicate_id")
    assert found["detail"] == "the id 'r0' was seen before"


def test_a_chat_of_several_questions_is_one_rejection(write, tmp_path):
    turns = [
        {"role": role, "content": f"{role} {turn}"}
        for turn in range(3)
        for role in ("user", "assistant")
    ]
    chat = {"id": "c", "images": ["0.png"], "messages": turns}
    chat["messages"][0]["content"] = "<image>first"
    stream = write([chat, chat])
    stream.convert = replace(stream.convert, record_format="messages")
    assert len(ids(stream, tmp_path)) == 3
    assert [(one["line"], one["reason"]) for one in rejected(tmp_path)] == [(2, "duplicate_id")]
    assert stream.rejected == {"duplicate_id": 1}


def test_large_records_go_in_smaller_chunks(tmp_path, monkeypatch):
    file = tmp_path / "x.jsonl"
    record = {"question": "What?", "answer": "A."}
    sizes = [0] * (RECORDS_IN_CHUNK + 2) + [300, 2000, 300, 300, 300, 300, 0]
    file.write_text("".join(json.dumps(record | {"pad": "x" * n}) + "\n" for n in sizes))
    monkeypatch.setattr(streams, "BYTES_IN_CHUNK", 1000)
    seen = []

    def convert(records):
        seen.append([record.line for record in records])
        return BUILDER.build([], [])

    list(ImportedStream(convert, open_input(file), 1).read(tmp_path))
    assert [len(chunk) for chunk in seen] == [16, 3, 1, 2, 3]
    assert [line for chunk in seen for line in chunk] == list(range(1, len(sizes) + 1))
