"""Chunks of rows, generated or imported, and what becomes of duplicates and of broken records."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import replace
from functools import cache, partial

import pytest
from PIL import Image

from pixelis.data.example import SPLITS, chance_level
from pixelis.data.store import ROWS_IN_BATCH, SCHEMA
from pixelis.data_prep import streams
from pixelis.data_prep.difficulty import COMPONENTS, composite
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.importing import Rejection, open_input
from pixelis.data_prep.plan import PlannedExample
from pixelis.data_prep.rows import COMPONENT, Chunk, RowBuilder, facts_of, split_of
from pixelis.data_prep.sources import open_source
from pixelis.data_prep.streams import (
    MAX_TOLD,
    RECORDS_IN_CHUNK,
    GeneratedStream,
    generate_chunk,
    import_chunk,
    open_import,
)
from pixelis.errors import CheckpointError, DataError
from pixelis.models.token_count import explain_refusal

WEIGHTS = dict(zip(COMPONENTS, (0.3, 0.25, 0.2, 0.15, 0.1), strict=True))
BUILDER = RowBuilder((0.12, 0.12), "composite", WEIGHTS)
PLANS = [
    PlannedExample(0, "object_counting", "positive"),
    PlannedExample(1, "text_extraction", "self_correction"),
    PlannedExample(2, "geometric_comparison", "trap_logical"),
]


def generate(planned, salt=0, *, seed=3, rows=BUILDER):
    return generate_chunk(planned, salt, seed=seed, source=open_source("scenes"), rows=rows).batch


@pytest.fixture(scope="module")
def batch():
    return generate(PLANS)


# Rows


def test_splits_have_their_shares_and_a_larger_validation_share_takes_from_train_alone():
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(4000)]
    before = [split_of(digest, 0.1, 0.1) for digest in digests]
    after = [split_of(digest, 0.3, 0.1) for digest in digests]
    counts = Counter(after)
    assert abs(counts["validation"] / 4000 - 0.3) < 0.02
    assert abs(counts["test"] / 4000 - 0.1) < 0.02 and set(counts) == set(SPLITS)
    for old, new in zip(before, after, strict=True):
        assert (old == "test") == (new == "test")
        assert old != "validation" or new == "validation"


def test_a_chunk_holds_the_planned_examples_in_order_and_its_facts(batch):
    assert batch.schema == SCHEMA
    facts = facts_of(batch).to_dict("records")
    for plan, row, fact in zip(PLANS, batch.to_pylist(), facts, strict=True):
        assert (row["task"], row["sample_type"]) == (plan.task, plan.sample_type)
        provenance = json.loads(row["provenance"])
        assert row["split"] == split_of(provenance["image_digest"], 0.12, 0.12)
        components = provenance["difficulty_components"]
        assert set(components) == set(COMPONENTS)
        assert row["difficulty_score"] == pytest.approx(
            sum(WEIGHTS[name] * components[name] for name in COMPONENTS), abs=1e-5
        )
        assert fact == {
            **{name: row[name] for name in ("task", "sample_type", "split")},
            "score": row["difficulty_score"],
            "answer": row["answer"],
            "iou": pytest.approx(math.nan, nan_ok=True),
            "chance": chance_level(provenance),
            "num_objects": len(provenance["objects"]),
            "key": int(hashlib.sha256(row["id"].encode()).hexdigest()[:16], 16),
            "image": int(provenance["image_digest"][:16], 16),
            **{COMPONENT + name: part for name, part in components.items()},
        }


def test_an_example_depends_on_its_plan_seed_and_salt_alone(batch):
    for plan, row in zip(PLANS, batch.to_pylist(), strict=True):
        assert generate([plan]).to_pylist() == [row]
    first = batch["id"][0]
    assert generate(PLANS[:1], 1)["id"][0] != first
    assert generate(PLANS[:1], seed=4)["id"][0] != first


def test_the_scorer_model_scores_by_the_composite_until_the_model_has(batch):
    assert generate(PLANS, rows=replace(BUILDER, scorer="model")) == batch


def test_pixels_of_one_example_at_a_time_are_in_memory(monkeypatch):
    example = generate_example(seed=0, index=0, task="object_counting", sample_type="positive")
    scored = []
    components = composite.example_components
    monkeypatch.setattr(
        composite,
        "example_components",
        lambda example, weights: scored.append(example.id) or components(example, weights),
    )

    def examples():
        for number in range(3):
            assert len(scored) == number, "the one before is a row already"
            yield replace(example, id=str(number))

    assert BUILDER.build(examples()).num_rows == 3


# Generated


@cache
def plain_example():
    return generate_example(seed=0, index=0, task="object_counting", sample_type="positive")


class FakeGenerate:
    """One example under the ids, and with the answers, that functions of its plan and salt give.

    None instead of an id: the source has no such example.
    """

    def __init__(self, name_of, answer_of=lambda plan, salt: "1"):
        self.name_of, self.answer_of = name_of, answer_of
        self.asked = []

    def __call__(self, planned, salt=0):
        self.asked += [(plan.index, salt) for plan in planned]
        plain = plain_example()
        examples = (
            replace(
                plain,
                id=name,
                task=plan.task,
                sample_type=plan.sample_type,
                answer=self.answer_of(plan, salt),
                provenance={**plain.provenance, "index": plan.index},
            )
            for plan in planned
            if (name := self.name_of(plan, salt)) is not None
        )
        return Chunk(BUILDER.build(examples), [])


def generated(make_chunk, count, tasks=("object_counting",), kinds=("positive",), **others):
    planned = [
        PlannedExample(index, tasks[index % len(tasks)], kinds[index % len(kinds)])
        for index in range(count)
    ]
    source = {"name": "fake"}
    return GeneratedStream(make_chunk, 1, source, planned=planned, tasks=tasks, **others)


def rows_in(stream, folder):
    return [row for made in stream.read(folder) for row in made.batch.to_pylist()]


def ids(stream, folder):
    return [name for made in stream.read(folder) for name in made.batch.column("id").to_pylist()]


def test_chunks_hold_every_plan_once(tmp_path):
    stream = generated(FakeGenerate(lambda plan, salt: f"{plan.index}"), 2 * ROWS_IN_BATCH + 1)
    sizes = [made.batch.num_rows for made in stream.read(tmp_path)]
    assert sizes == [ROWS_IN_BATCH, ROWS_IN_BATCH, 1]
    assert list(tmp_path.iterdir()) == [], "nothing was rejected"


def test_an_example_that_came_before_is_made_anew_until_it_differs(tmp_path):
    # Number 2 is as number 0 twice, in the same chunk; number 60 is as number 1, in another.
    names = {(2, 0): "0", (2, 1): "1", (60, 0): "1", (0, 0): "0", (1, 0): "1"}
    make = FakeGenerate(lambda plan, salt: names.get((plan.index, salt), f"{plan.index}.{salt}"))
    found = ids(generated(make, 70), tmp_path)
    assert len(found) == 70 == len(set(found))
    assert (found[2], found[60]) == ("2.2", "60.1"), "in the place of the one it replaces"
    assert Counter(index for index, _ in make.asked).most_common(2) == [(2, 3), (60, 2)]


@pytest.fixture
def limited():
    """A source that has a number of different examples of some tasks and types, else any number."""

    def limit(**counts):
        def name_of(plan, salt):
            number = plan.index + 13 * salt
            for kind in (plan.task, plan.sample_type):
                number = number % counts[kind] if kind in counts else number
            return f"{plan.task} {plan.sample_type} {number}"

        return FakeGenerate(name_of)

    return limit


def test_a_task_that_runs_out_gives_its_share_to_the_others(limited, tmp_path):
    tasks = ("object_counting", "spatial_reasoning", "text_extraction")
    stream = generated(limited(object_counting=4), 90, tasks)
    rows = rows_in(stream, tmp_path)
    assert len({row["id"] for row in rows}) == 90
    assert Counter(row["task"] for row in rows) == dict(zip(tasks, (4, 43, 43), strict=True))
    assert stream.source["ran_out"] == {"object_counting": {"planned": 30, "made": 4}}


def test_several_tasks_may_run_out_and_one_may_run_out_of_one_type_alone(limited, tmp_path):
    tasks = ("object_counting", "spatial_reasoning", "text_extraction")
    stream = generated(limited(object_counting=4, text_extraction=9), 90, tasks)
    counts = Counter(row["task"] for row in rows_in(stream, tmp_path))
    assert counts == dict(zip(tasks, (4, 77, 9), strict=True))
    make = FakeGenerate(
        lambda plan, salt: (
            None
            if (plan.task, plan.sample_type) == ("text_extraction", "trap_logical")
            else f"{plan.task} {plan.index}"
        )
    )
    stream = generated(make, 80, tasks[1:], ("positive", "positive", "positive", "trap_logical"))
    kinds = Counter((row["task"], row["sample_type"]) for row in rows_in(stream, tmp_path))
    assert kinds == {
        ("spatial_reasoning", "positive"): 40,
        ("spatial_reasoning", "trap_logical"): 20,
        ("text_extraction", "positive"): 20,
    }
    assert stream.source["ran_out"] == {"text_extraction": {"planned": 40, "made": 20}}


def test_a_type_that_runs_out_in_all_tasks_gives_its_share_to_positive_ones(limited, tmp_path):
    tasks, kinds = ("object_counting", "spatial_reasoning"), (*["positive"] * 4, "trap_logical")
    stream = generated(limited(trap_logical=3), 80, tasks, kinds)
    found = Counter(row["sample_type"] for row in rows_in(stream, tmp_path))
    assert found == {"positive": 74, "trap_logical": 6}
    assert stream.source["ran_out"] == {"trap_logical": {"planned": 16, "made": 6}}


@pytest.mark.parametrize(
    ("counts", "kinds", "most"),
    [
        ({"object_counting": 7, "spatial_reasoning": 9}, ("positive",), 16),
        ({"object_counting": 1, "spatial_reasoning": 40}, ("positive",), 41),
        ({"positive": 5}, ("positive", "trap_logical"), 20),
    ],
)
def test_a_source_that_is_exhausted_names_the_largest_number_that_works(
    limited, tmp_path, counts, kinds, most
):
    tasks = ("object_counting", "spatial_reasoning")

    def make(count):
        return len(ids(generated(limited(**counts), count, tasks, kinds), tmp_path))

    for count in (most + 1, most + 90):
        message = rf"^num_samples must be at most {most}, got {count} \(the source fake has no "
        with pytest.raises(DataError, match=message):
            make(count)
    assert make(most) == most


def test_the_error_says_what_there_is_and_what_is_missing(limited, tmp_path):
    stream = generated(limited(object_counting=3), 20, max_answer_share=1.0)
    with pytest.raises(DataError) as caught:
        ids(stream, tmp_path)
    assert str(caught.value) == (
        "num_samples must be at most 3, got 20 (the source fake has no other example after "
        "object_counting 3); lower it or add images"
    )


@pytest.mark.parametrize(("share", "most"), [(0.5, 50), (0.25, 25), (1.0, 90)])
def test_no_answer_has_more_than_its_share_of_a_task(tmp_path, share, most):
    make = FakeGenerate(
        lambda plan, salt: f"{plan.index}.{salt}",
        # Nine in ten are black.
        lambda plan, salt: "black" if (plan.index + 7 * salt) % 10 else f"{plan.index % 9}",
    )
    rows = rows_in(generated(make, 100, max_answer_share=share), tmp_path)
    black = [row["answer"] == "black" for row in rows]
    assert len(rows) == 100 and sum(black) == most
    for end in range(1, 100):
        assert sum(black[:end]) <= math.ceil(share * end), "wherever the task ends"


def test_a_task_with_one_answer_alone_gives_its_share_away(tmp_path):
    tasks = ("object_counting", "spatial_reasoning")
    make = FakeGenerate(
        lambda plan, salt: f"{plan.index}.{salt}",
        lambda plan, salt: "1" if plan.task == "object_counting" else f"{(plan.index + salt) % 3}",
    )
    stream = generated(make, 60, tasks, max_answer_share=0.5)
    assert Counter(row["task"] for row in rows_in(stream, tmp_path)) == {
        "object_counting": 1,
        "spatial_reasoning": 59,
    }
    with pytest.raises(DataError, match="; of a task at most 50% with one answer"):
        ids(generated(make, 60, tasks[:1], max_answer_share=0.5), tmp_path)


def test_what_a_source_refused_of_its_own_is_written_and_counted(tmp_path):
    rejections = [Rejection("a.json", n, "unknown_image", "no image") for n in (4, 9)]
    make = FakeGenerate(lambda plan, salt: f"{plan.index}")
    stream = generated(make, 3, rejections=rejections)
    assert len(ids(stream, tmp_path)) == 3 and stream.rejected == {"unknown_image": 2}
    assert [one["line"] for one in rejected(tmp_path)] == [4, 9]
    assert stream.source["first_rejected"] == {"unknown_image": "a.json:4: no image"}


def test_a_rejected_record_of_coco_has_its_id(tmp_path):
    rejections = [
        Rejection("a.json", None, "broken_box", "a box", id=7),
        Rejection("a.json", 2, "x", "y"),
    ]
    stream = generated(FakeGenerate(lambda index, salt: f"{index}"), 1, rejections=rejections)
    ids(stream, tmp_path)
    assert rejected(tmp_path) == [
        {"file": "a.json", "id": 7, "reason": "broken_box", "detail": "a box"},
        {"file": "a.json", "line": 2, "reason": "x", "detail": "y"},
    ]
    assert stream.source["first_rejected"]["broken_box"] == "a.json:id 7: a box"


# Imported


@pytest.fixture
def write(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        Image.new("RGB", (20, 20 + number), (number, 0, 0)).save(source / f"{number}.png")

    def write(records):
        lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
        (source / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return open_import(open_input(source / "some.jsonl"), BUILDER, 1)

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
    expected = {"name": "input", "format": "cota", "files": ["some.jsonl"], "records": count}
    calls = {"replayed": 0, "disagreed": 0, "not_replayed": 0}
    assert stream.source == expected | {"calls": calls, "told": {}}


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


def test_calls_and_tools_are_counted_over_all_chunks(write, tmp_path):
    def zoom(number, tool, **step):
        call = {"tool": tool, "args": {"bbox": [0, 0, 4, 4]}, **step}
        return record(number, trajectory=[call])

    records = [
        [
            zoom(4 * number, "ZOOM_IN"),
            zoom(4 * number + 1, "ZOOM_IN", image="0.png"),
            zoom(4 * number + 2, "crop_image"),
            zoom(4 * number + 3, "READ_TEXT", result="a text alone"),
        ]
        for number in range(RECORDS_IN_CHUNK)
    ]
    stream = write([each for four in records for each in four])
    assert len(ids(stream, tmp_path)) == 3 * RECORDS_IN_CHUNK
    assert stream.source["calls"] == {
        "replayed": RECORDS_IN_CHUNK,
        "disagreed": RECORDS_IN_CHUNK,
        "not_replayed": RECORDS_IN_CHUNK,
    }
    told = "tool 'crop_image' is not mapped; import.tools=pixel_reasoner would map it"
    assert stream.source["told"] == {told: RECORDS_IN_CHUNK}
    assert {*rejected(tmp_path)[0]} == {"file", "line", "reason", "detail"}


def test_of_many_tools_the_commonest_are_told(write, tmp_path):
    calls = [[{"tool": f"tool{number % 30}"}] for number in range(95)]
    stream = write([record(number, trajectory=steps) for number, steps in enumerate(calls)])
    ids(stream, tmp_path)
    assert len(stream.source["told"]) == MAX_TOLD
    assert stream.source["told"]["tool 'tool4' is not mapped"] == 4


@pytest.mark.parametrize("distance", [1, 3 * RECORDS_IN_CHUNK])
def test_the_same_record_again_is_a_duplicate(write, tmp_path, distance):
    records = [record(number) for number in range(distance)]
    stream = write([*records, record(0)])
    assert len(ids(stream, tmp_path)) == distance
    (found,) = rejected(tmp_path)
    assert (found["line"], found["reason"]) == (distance + 1, "duplicate_id")
    assert found["detail"] == "the id 'r0' and its content came before"


@pytest.mark.parametrize("distance", [1, 3 * RECORDS_IN_CHUNK])
@pytest.mark.parametrize(
    "change", [{"answer": "another"}, {"question": "Which?"}, {"image": "7.png"}]
)
def test_the_same_id_with_other_content_gets_a_number(write, tmp_path, distance, change):
    # In LLaVA's files the id is the image's: many questions share it.
    records = [record(number) for number in range(distance)]
    stream = write([*records, record(0, **change), record(0, answer="a third"), record(0)])
    assert ids(stream, tmp_path)[distance:] == ["r0#2", "r0#3"]
    assert [one["line"] for one in rejected(tmp_path)] == [distance + 3]
    assert stream.rejected == {"duplicate_id": 1}


def test_a_chat_of_several_questions_is_one_rejection(write, tmp_path):
    turns = [
        {"role": role, "content": f"{role} {turn}"}
        for turn in range(3)
        for role in ("user", "assistant")
    ]
    chat = {"id": "c", "images": ["0.png"], "messages": turns}
    chat["messages"][0]["content"] = "<image>first"
    stream = write([chat, chat])
    assert len(ids(stream, tmp_path)) == 3
    assert [(one["line"], one["reason"]) for one in rejected(tmp_path)] == [(2, "duplicate_id")]
    assert stream.rejected == {"duplicate_id": 1}


def test_of_a_chat_that_begins_as_another_only_what_differs_is_kept(write, tmp_path):
    def chat(*texts):
        roles = ("user", "assistant") * len(texts)
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        return {"id": "c", "images": ["0.png"], "messages": turns}

    same = ("What?", "A circle.", "Which colour?")
    stream = write([chat(*same, "red"), chat(*same, "blue"), chat(*same, "red")])
    assert ids(stream, tmp_path) == ["c#1", "c#2", "c#2#2"]
    assert [one["line"] for one in rejected(tmp_path)] == [3]


def test_large_records_go_in_smaller_chunks(write, tmp_path, monkeypatch):
    sizes = [0] * (RECORDS_IN_CHUNK + 2) + [300, 2000, 300, 300, 300, 300, 0]
    monkeypatch.setattr(streams, "BYTES_IN_CHUNK", 1000)
    stream = write([{"question": "What?", "answer": "A.", "pad": "x" * size} for size in sizes])
    seen = []

    def convert(records):
        seen.append([record.line for record in records])
        return Chunk(BUILDER.build([]), [])

    stream.make_chunk = convert
    list(stream.read(tmp_path))
    assert [len(chunk) for chunk in seen] == [16, 3, 1, 2, 3]
    assert [line for chunk in seen for line in chunk] == list(range(1, len(sizes) + 1))


@pytest.mark.parametrize("error", [DataError("U+E000"), DataError("aspect ratio must be small")])
def test_what_the_model_s_processor_refuses_is_rejected(write, tmp_path, error):
    def refuse(example):
        if example.images[0].height == 21:
            raise error
        return 1

    found = write([record(1), record(2)])
    found.make_chunk.keywords.update(count_tokens=refuse, max_length=5)
    assert ids(found, tmp_path) == ["r2"]
    (one,) = rejected(tmp_path)
    assert one["line"] == 1 and str(error) in one["detail"]


@pytest.mark.parametrize("size", [(900, 4), (2, 500)])
def test_an_image_that_the_base_refuses_is_rejected_with_file_and_line(write, tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "source" / "thin.png")
    Image.new("RGB", (600, 40)).save(tmp_path / "source" / "wide.png")
    zoom = {"operation": "ZOOM_IN", "arguments": {"bbox": [0, 0, 600, 1], "factor": 1}}
    steps = [{"thought": "I look.", **zoom}]
    records = [record(2, image="thin.png"), record(3, image="wide.png", trajectory=steps)]
    stream = write([record(1), *records, record(4), record(5, image="wide.png")])
    stream.explain_refusal = partial(explain_refusal, "pixelis-nano")
    assert ids(stream, tmp_path) == ["r1", "r4", "r5"]
    found = rejected(tmp_path)
    assert [(each["file"], each["line"], each["reason"]) for each in found] == [
        ("some.jsonl", 2, "unreadable_image"),
        ("some.jsonl", 3, "unreadable_image"),
    ]
    for each, (width, height) in zip(found, (size, (600, 1)), strict=True):
        assert each["detail"].startswith(
            f"the model's processor refuses an image of {width} x {height} pixels: absolute aspect "
        )


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_record(write):
    def fail(example):
        raise CheckpointError("no such model")

    stream = write([record(1)])
    (part,) = stream._parts()
    with pytest.raises(CheckpointError):
        import_chunk(part, **stream.make_chunk.keywords | {"count_tokens": fail, "max_length": 5})
