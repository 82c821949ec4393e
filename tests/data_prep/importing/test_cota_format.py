import dataclasses
import json

import pytest
from PIL import Image

from pixelis.data.images import image_digest
from pixelis.data.store import to_row, write_rows
from pixelis.data_prep.importing import open_input, read_records

LOOK = {"thought": "I look.", "operation": "SEGMENT_OBJECT_AT", "arguments": {"x": 20, "y": 20}}
SAMPLE = {
    "id": "s1",
    "task": "counting",
    "sample_type": "positive",
    "question": "How many red circles?",
    "image": "images/a.png",
    "trajectory": [LOOK],
    "conclusion": "There is one.",
    "answer": "1",
    "ground_truth": "1",
    "difficulty": "hard",
}


def without(*names, **changes):
    return {key: value for key, value in SAMPLE.items() if key not in names} | changes


def test_a_sample_becomes_an_example_with_its_result_made(take, folder):
    (example,) = take(SAMPLE, "cota")
    assert (example.id, example.task, example.sample_type) == ("s1", "counting", "positive")
    assert (example.question, example.conclusion) == ("How many red circles?", "There is one.")
    assert (example.answer, example.ground_truth) == ("1", "1")
    (step,) = example.trajectory
    assert step.result["bbox"] == [10, 10, 31, 31] and step.supervised
    with Image.open(folder / "images/a.png") as image:
        assert example.images[0].tobytes() == image.tobytes()
        digest = image_digest(image)
    assert example.provenance == {
        "source": "input",
        "format": "cota",
        "file": "some.jsonl",
        "line": 7,
        "generator": "import",
        "image_digest": digest,
        "replays": ["replayed"],
    }
    stored = to_row(example)["images"][0]["bytes"]
    assert stored == (folder / "images/a.png").read_bytes()
    assert example.difficulty == ""


def test_other_names_of_the_fields_mean_the_same(take):
    other = {
        "sample_id": "s1",
        "task_type": "counting",
        "query": "How many red circles?",
        "image_path": "images/a.png",
        "steps": [{"reasoning": "I look.", "tool": LOOK["operation"], "args": LOOK["arguments"]}],
        "conclusion": "There is one.",
        "final_answer": 1,
    }
    (one,), (two,) = take(SAMPLE, "cota"), take(other, "cota")
    assert to_row(one) == to_row(two)


def test_what_is_missing_has_a_default(take):
    bare = without("id", "task", "sample_type", "conclusion", "trajectory", "answer")
    (example,) = take(bare, "cota")
    assert (example.task, example.sample_type, example.answer) == ("imported", "positive", "1")
    assert (example.trajectory, example.conclusion) == ((), "")
    assert len(example.id) == 16 and take(bare, "cota")[0].id == example.id
    assert take(bare | {"question": "Else?"}, "cota")[0].id != example.id


@pytest.mark.parametrize(("given", "text"), [(3, "3"), (2.5, "2.5"), (10**30, "1" + "0" * 30)])
def test_a_number_is_an_answer(take, given, text):
    (example,) = take(without("ground_truth", answer=given), "cota")
    assert example.answer == example.ground_truth == text


@pytest.mark.parametrize(("given", "text"), [(3, "3"), (3.0, "3"), ("a b", "a b")])
def test_ids_become_text(take, given, text):
    assert take(without(id=given), "cota")[0].id == text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"area": 3}, {"area": 3}),
        ('{"area": 3, "note": null}', {"area": 3}),
        ("a circle", {"text": "a circle"}),
        ([1, 2], {"value": [1, 2]}),
        (5, {"value": 5}),
    ],
)
def test_a_given_result_is_kept(take, given, kept):
    (example,) = take(without(trajectory=[LOOK | {"result": given}]), "cota")
    assert example.trajectory[0].result == kept


@pytest.mark.parametrize("nothing", [None, "", " ", {}, {"area": None}])
def test_a_result_without_content_is_made(take, nothing):
    (example,) = take(without(trajectory=[LOOK | {"result": nothing}]), "cota")
    assert "bbox" in example.trajectory[0].result


def test_zoom_in_gets_its_image_unless_the_record_brings_one(take):
    zoom = {"operation": "ZOOM_IN", "arguments": '{"bbox": [0, 0, 10, 5]}', "result": {"seen": 1}}
    (example,) = take(without(trajectory=[zoom]), "cota")
    step = example.trajectory[0]
    assert (step.thought, step.result, step.image.size) == ("", {"seen": 1}, (20, 10))
    (example,) = take(without(trajectory=[zoom | {"image": "c.jpg"}]), "cota")
    assert example.trajectory[0].image.size == (64, 48)
    failed = zoom | {"arguments": {}, "result": {"error": "no box"}}
    (example,) = take(without(trajectory=[failed]), "cota")
    assert example.trajectory[0].image is None


# What a record brings, and what the operation gives


@pytest.mark.parametrize(
    ("brought", "result", "size", "replay"),
    [
        ({}, {"size": [20, 10]}, (20, 10), "replayed"),
        ({"image": "c.jpg"}, {"size": [64, 48]}, (64, 48), "disagreed"),
        ({"image": "c.jpg", "result": "Here."}, {"text": "Here."}, (64, 48), "disagreed"),
        ({"image": "c.jpg", "result": {"size": [9, 9]}}, {"size": [9, 9]}, (64, 48), "disagreed"),
        ({"image": "same.jpg"}, {"size": [20, 10]}, (20, 10), "replayed"),
        ({"image": "same.jpg", "result": {"size": [9]}}, {"size": [9]}, (20, 10), "disagreed"),
        ({"image": "red.png"}, {"size": [20, 10]}, (20, 10), "disagreed"),
        ({"result": {"size": [64, 48]}}, {"size": [20, 10]}, (20, 10), "disagreed"),
        ({"result": {"size": [20, 10], "n": 1}}, {"size": [20, 10], "n": 1}, (20, 10), "replayed"),
    ],
)
def test_the_image_of_a_zoom_and_its_result_tell_the_same(
    take, folder, brought, result, size, replay
):
    with Image.open(folder / "images/a.png") as image:
        same = image.crop((0, 0, 10, 5)).resize((20, 10), Image.Resampling.BILINEAR)
        same.save(folder / "same.jpg", quality=75)
    Image.new("RGB", (20, 10), "red").save(folder / "red.png")
    zoom = {"operation": "ZOOM_IN", "arguments": {"bbox": [0, 0, 10, 5]}, **brought}
    (example,) = take(without(trajectory=[zoom]), "cota")
    (step,) = example.trajectory
    assert (step.result, step.image.size) == (result, size)
    assert example.provenance["replays"] == [replay]


@pytest.mark.parametrize(
    ("changes", "replay"),
    [
        ({"result": {"bbox": [10, 10, 31, 31]}}, "replayed"),
        ({"result": {"bbox": [10, 10, 31, 31], "name": "ball"}}, "replayed"),
        ({"result": {"bbox": [0, 0, 9, 9], "name": "ball"}}, "disagreed"),
        ({"result": {"error": "nothing there"}}, "disagreed"),
        ({"image": "c.jpg"}, "disagreed"),
        ({"result": "a circle"}, "not_replayed"),
        ({"result": {"bbox": [0, 0, 9, 9]}, "arguments": {"x": 999, "y": 1}}, "not_replayed"),
        ({"result": {"error": "outside"}, "arguments": {"x": 999, "y": 1}}, "replayed"),
    ],
)
def test_a_result_is_kept_and_compared_with_the_operation_s_own(take, changes, replay):
    (example,) = take(without(trajectory=[LOOK | changes]), "cota")
    assert example.provenance["replays"] == [replay]
    if isinstance(changes.get("result"), dict):
        assert example.trajectory[0].result == changes["result"]


def test_what_needs_no_run_is_replayed_as_far_as_the_work_allows(take, monkeypatch):
    monkeypatch.setattr("pixelis.data_prep.importing.cota_format.MAX_WORK", 2 * 64 * 48)
    steps = [LOOK | {"result": {"area": 3}}] * 2 + [LOOK]
    (example,) = take(without(trajectory=steps), "cota")
    assert example.provenance["replays"] == ["disagreed", "not_replayed", "replayed"]


def test_a_planted_wrong_step_stays_unsupervised_and_may_fail(take):
    wrong = {"operation": "GET_PROPERTIES", "arguments": {"bbox": [50, 40, 60, 47]}}
    data = without(sample_type="self_correction", trajectory=[wrong | {"supervised": False}, LOOK])
    first, second = take(data, "cota")[0].trajectory
    assert "error" in first.result and (first.supervised, second.supervised) == (False, True)


def test_our_own_files_come_back(take, one_of_each, tmp_path):
    write_rows(map(to_row, one_of_each), tmp_path / "cota_simple.parquet")
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    source = open_input(tmp_path)
    assert (source.format, [*source.files.values()]) == ("cota", ["parquet"])
    for record, known in zip(read_records(source), one_of_each, strict=True):
        (found,) = take(record.data, "cota")
        assert found.provenance["image_digest"] == image_digest(*known.images)
        assert found.provenance["original"].keys() == known.provenance.keys()
        assert found.provenance["replays"] == ["replayed"] * len(known.trajectory)
        plain = [dataclasses.replace(e, provenance={}, images=(), split="") for e in (found, known)]
        assert to_row(plain[0]) | {"difficulty": ""} == to_row(plain[1]) | {"difficulty": ""}


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"question": " "}, "missing_text", "the question is missing or empty"),
        ({"question": None}, "missing_text", "the question is missing or empty"),
        ({"question": 3}, "wrong_type", "question must be a text, got 3"),
        ({"query": "Else?"}, "wrong_type", "question and query differ; give one of them"),
        ({"image": None}, "no_image", "the question has no image"),
        ({"images": ["c.jpg"]}, "wrong_type", "images and image differ"),
        ({"answer": None, "ground_truth": None}, "no_answer", "the question has no answer"),
        ({"answer": "", "ground_truth": " "}, "no_answer", "the question has no answer"),
        ({"answer": "2"}, "answer_differs", "answer '2' and ground_truth '1' differ"),
        (
            {"answer": "2", "sample_type": "outcome_negative"},
            "answer_differs",
            "answer '2' and ground_truth '1' differ",
        ),
        *(
            (
                {"ground_truth": None, "sample_type": kind},
                "unjudged",
                f"a record of type {kind} must have the right answer as ground_truth",
            )
            for kind in ("outcome_negative", "trap_logical", "trap_perceptual")
        ),
        (
            {"sample_type": "self_correction"},
            "unjudged",
            "must mark its wrong step with supervised: false",
        ),
        ({"answer": True}, "wrong_type", "answer must be a text or a number, got True"),
        ({"answer": float("nan")}, "wrong_type", "answer must be a text or a number, got nan"),
        ({"answer": ["1"]}, "wrong_type", "answer must be a text or a number, got ['1']"),
        ({"answer": "1</answer>"}, "markup", "answer may not hold </answer>"),
        ({"sample_type": "good"}, "wrong_type", "sample_type must be one of positive, outcome_"),
        ({"sample_type": ["positive"]}, "wrong_type", "sample_type must be one of positive"),
        ({"task": "x" * 101}, "wrong_type", "task must be one line of at most 100 characters"),
        ({"id": "x" * 201}, "wrong_type", "id must be printable and have at most 200 characters"),
        ({"id": "a\nb"}, "wrong_type", "id must be printable"),
        ({"id": True}, "wrong_type", "id must be a text or a whole number, got True"),
        ({"id": 1.5}, "wrong_type", "id must be a text or a whole number, got 1.5"),
        ({"trajectory": {"a": 1}}, "wrong_type", "trajectory must be a list, got {'a': 1}"),
        ({"trajectory": ["look"]}, "wrong_type", "a step must be an object, got 'look'"),
        ({"trajectory": [LOOK] * 65}, "too_large", "a trajectory may have 64 steps"),
        ({"provenance": [1]}, "wrong_type", "provenance must be an object, got [1]"),
        ({"provenance": "{"}, "wrong_type", "provenance must be JSON: Expecting"),
        (
            {"question": "a\x00b"},
            "characters",
            "question may not hold control",
        ),
        ({"question": "a\x7fb"}, "characters", "lone surrogates, got U+007F at 1"),
        ({"answer": "\ue000"}, "characters", "answer may not hold control characters"),
        ({"conclusion": "\ue001"}, "characters", "got U+E001 at 0"),
        ({"question": "\ud83d"}, "characters", "got U+D83D at 0"),
        ({"question": "x" * 1_000_001}, "too_large", "question may have 1000000 characters"),
    ],
)
def test_a_field_that_breaks_its_rule(refuse, changes, reason, text):
    found = refuse(SAMPLE | changes, "cota")
    assert found[0] == reason and text in found[1]


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"operation": "zoom_in"}, "unknown_operation", "operation 'zoom_in'; choices: ZOOM_IN, "),
        ({"operation": None}, "unknown_operation", "operation None; choices: "),
        ({"arguments": [1]}, "broken_call", "arguments must be an object, got [1]"),
        ({"arguments": "{"}, "broken_call", "arguments must be JSON: Expecting"),
        ({"arguments": '{"x": NaN}'}, "broken_call", "NaN is not JSON"),
        ({"arguments": "[" * 10**5}, "broken_call", "must be JSON: nested too deeply"),
        (
            {"arguments": {"x": float("inf")}},
            "broken_call",
            "must be JSON: Out of range float",
        ),
        ({"arguments": {"x": b"1"}}, "broken_call", "must be JSON: Object of type bytes"),
        ({"arguments": json.dumps(nested(80))}, "broken_call", "nested too deeply, more than 64"),
        ({"arguments": {"x": "\ue000"}}, "characters", "arguments may not hold control"),
        ({"arguments": {"\x00": 1}}, "characters", "arguments may not hold control"),
        ({"arguments": {"x": 999, "y": 1}}, "failed_operation", "SEGMENT_OBJECT_AT has no result"),
        ({"supervised": "no"}, "wrong_type", "supervised must be a bool, got 'no'"),
        ({"image": ["c.jpg", "c.jpg"]}, "image_count", "a step may have one image, got 2"),
        ({"thought": "<tool_call>"}, "markup", "thought may not hold <tool_call>"),
        ({"result": [float("nan")]}, "wrong_type", "a result must be JSON: Out of range"),
    ],
)
def test_a_step_that_breaks_its_rule(refuse, changes, reason, text):
    found = refuse(SAMPLE | {"trajectory": [LOOK | changes]}, "cota")
    assert found[0] == reason and text in found[1]


def test_zoom_in_with_a_result_but_on_nothing(refuse):
    zoom = {"operation": "ZOOM_IN", "arguments": {"bbox": [0, 0, 999, 9]}, "result": {"size": [1]}}
    reason, text = refuse(SAMPLE | {"trajectory": [zoom]}, "cota")
    assert reason == "failed_operation" and "bbox must satisfy" in text


def test_the_work_of_running_calls_is_bounded(refuse, monkeypatch):
    monkeypatch.setattr("pixelis.data_prep.importing.cota_format.MAX_WORK", 2 * 64 * 48)
    reason, text = refuse(SAMPLE | {"trajectory": [LOOK] * 3}, "cota")
    assert reason == "too_large"
    assert text == "calls to run times pixels may be 6144 for a record, got 9216"


def test_length_is_counted_where_asked_for(take, refuse):
    def count(example):
        return len(example.question)

    take(SAMPLE, "cota", count_tokens=count, max_length=21)
    found = refuse(SAMPLE, "cota", count_tokens=count, max_length=20)
    assert found == ("too_long", "21 tokens, more than max_length 20")


def test_windows_line_ends_are_line_ends(take):
    assert take(without(question="a\r\nb\tc"), "cota")[0].question == "a\nb\tc"
