import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixelis.config import DataPrepConfig, DifficultyConfig, flatten
from pixelis.data.example import DIFFICULTIES, SPLITS
from pixelis.data.store import from_row, load_split
from pixelis.data_prep import prepare
from pixelis.data_prep.difficulty import COMPONENTS
from pixelis.data_prep.plan import plan_samples, sample_ratios
from pixelis.data_prep.prepare import NOT_CONTENT, prepare_folder
from pixelis.data_prep.sources import open_source
from pixelis.data_prep.streams import choose_tasks, open_stream
from pixelis.data_prep.summary import format_summary
from pixelis.data_prep.tasks import TASKS
from pixelis.errors import ConfigError, DataError

PARQUET = {"cota_simple.parquet", "cota_medium.parquet", "cota_hard.parquet"}
FILES = {*PARQUET, "summary.json", "difficulty.png", "examples.png"}
RATIOS = {
    "self_correction": 0.1,
    "outcome_negative": 0.1,
    "trap_perceptual": 0.1,
    "trap_logical": 0.1,
}
NUM_SAMPLES = 210
ALONE = DifficultyConfig(correlation_samples=0)
PLAIN = DataPrepConfig(num_samples=21, num_workers=1, difficulty=ALONE)
CONFIG = PLAIN.replace(num_samples=NUM_SAMPLES, include_traps=True, include_negatives=True)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_of(folder):
    return [row for name in sorted(PARQUET) for row in pq.read_table(folder / name).to_pylist()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "cota"
    return out, prepare_folder(CONFIG, out)


@pytest.fixture(scope="module")
def rows(made):
    return rows_of(made[0])


# The plan: what is made


def test_as_many_as_asked_for_with_tasks_in_turn_and_types_in_exact_shares(rows):
    assert len(rows) == NUM_SAMPLES == len({row["id"] for row in rows})
    assert Counter(row["task"] for row in rows) == dict.fromkeys(TASKS, NUM_SAMPLES // len(TASKS))
    expected = {name: 21 for name in RATIOS} | {"positive": 126}
    assert Counter(row["sample_type"] for row in rows) == expected


@pytest.mark.parametrize("num_samples", [1, 2, 7, 101])
def test_any_number_can_be_planned(num_samples):
    plans = plan_samples(num_samples, 0, list(TASKS), RATIOS)
    assert [plan.index for plan in plans] == list(range(num_samples))
    counts = Counter(plan.task for plan in plans)
    assert max(counts.values()) - min(counts.get(task, 0) for task in TASKS) <= 1
    types = Counter(plan.sample_type for plan in plans)
    assert all(types[name] == round(0.1 * num_samples) for name in RATIOS)


def test_types_are_spread_over_tasks_and_places_by_the_seed():
    first, again, other = (plan_samples(1000, seed, list(TASKS), RATIOS) for seed in (1, 1, 2))
    assert first == again != other
    assert {plan.task for plan in first if plan.sample_type == "trap_logical"} == set(TASKS)
    assert {plan.sample_type for plan in first[:60]} == {*RATIOS, "positive"}


def test_ratios_are_those_of_what_is_included():
    traps = PLAIN.replace(include_traps=True, trap_ratio=0.3, negative_ratio=0.2)
    assert sample_ratios(traps) == {
        "self_correction": 0.1,
        "outcome_negative": 0.0,
        "trap_perceptual": 0.15,
        "trap_logical": 0.15,
    }
    assert sample_ratios(PLAIN.replace(include_negatives=True))["outcome_negative"] == 0.1


def test_a_task_that_the_source_lacks_is_refused():
    source = open_source("scenes")
    assert choose_tasks(None, source) == source.tasks
    source.tasks = ("object_counting",)
    with pytest.raises(ConfigError, match="^tasks must be among object_counting, got 'reading'"):
        choose_tasks(("object_counting", "reading"), source)


# Splits and difficulty


def test_every_difficulty_holds_every_task(rows):
    found = {(row["difficulty"], row["task"]) for row in rows}
    assert found == set(product(DIFFICULTIES, TASKS))


# The files


@pytest.mark.parametrize("num_workers", [2, 8])
@pytest.mark.integration
def test_any_number_of_workers_in_any_folder_writes_the_same_bytes(made, tmp_path, num_workers):
    elsewhere = CONFIG.replace(num_workers=num_workers, output_dir=str(tmp_path / "cota"))
    prepare_folder(elsewhere, tmp_path / "cota")
    assert contents(tmp_path / "cota") == contents(made[0])


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_few_samples_are_three_readable_files(tmp_path, num_samples):
    prepare_folder(PLAIN.replace(num_samples=num_samples), tmp_path / "cota")
    assert names_in(tmp_path / "cota") == FILES
    found = [load_split(tmp_path / "cota", split) for split in SPLITS]
    assert sum(len(rows) for loaded in found for rows in loaded.values()) == num_samples


def test_the_summary_says_what_is_in_the_files(made, rows):
    out, returned = made
    assert names_in(out) == FILES
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary == returned
    kept = {name: value for name, value in flatten(CONFIG).items() if name not in NOT_CONTENT}
    assert summary["num_samples"] == NUM_SAMPLES and summary["config"] == kept
    assert summary["source"] == {"name": "scenes", "tasks_left_out": [], "ran_out": {}}
    assert summary["rejected"] == {} == summary["iou_by_task"]
    assert summary["rank_correlation"] is None
    for name in PARQUET:
        assert summary["sha256"][name] == hashlib.sha256((out / name).read_bytes()).hexdigest()
    for counts in ("by_split_and_difficulty", "by_difficulty_and_task", "by_sample_type"):
        assert sum(summary[counts].values()) == NUM_SAMPLES
    for split in SPLITS:
        for difficulty, loaded in load_split(out, split).items():
            assert len(loaded) == summary["by_split_and_difficulty"][f"{split}/{difficulty}"]
    for difficulty in DIFFICULTIES:
        scores = [row["difficulty_score"] for row in rows if row["difficulty"] == difficulty]
        found = summary["scores"][difficulty]
        assert (found["min"], found["max"]) == (min(scores), max(scores))
        assert found["mean"] == pytest.approx(sum(scores) / len(scores))
    assert set(summary["thresholds"]["values"]) == set(TASKS)
    assert summary["thresholds"]["undivided"] == []
    for task in TASKS:
        answers = Counter(row["answer"] for row in rows if row["task"] == task)
        top = summary["top_answer_by_task"][task]
        assert answers[top["answer"]] == max(answers.values())
        assert top["share"] == max(answers.values()) / answers.total()


def test_fixed_thresholds_cut_the_scores_and_stand_in_the_summary(tmp_path):
    rules = ALONE.replace(method="thresholds", thresholds=(0.3, 0.45))
    summary = prepare_folder(PLAIN.replace(difficulty=rules), tmp_path / "cota")
    assert summary["thresholds"] == {"method": "thresholds", "values": {"all": [0.3, 0.45]}}
    for row in rows_of(tmp_path / "cota"):
        above = (row["difficulty_score"] >= 0.3) + (row["difficulty_score"] >= 0.45)
        assert row["difficulty"] == DIFFICULTIES[above]


def test_the_scorer_multi_writes_its_components(tmp_path):
    rules = ALONE.replace(scorer="multi")
    summary = prepare_folder(PLAIN.replace(difficulty=rules), tmp_path / "cota")
    assert "visual/clutter" in summary["components"]["simple"]
    for row in rows_of(tmp_path / "cota"):
        components = json.loads(row["provenance"])["difficulty_components"]
        assert {name.split("/")[0] for name in components} == {
            *("visual", "linguistic", "procedural")
        }


def test_the_scorer_model_writes_the_model_s_loss_as_score(tmp_path):
    def answer_losses(examples):
        return [len(example.question) / 100 for example in examples]

    rules = ALONE.replace(scorer="model")
    config = PLAIN.replace(difficulty=rules)
    summary = prepare_folder(config, tmp_path / "cota", answer_losses=answer_losses)
    assert set(summary["components"]["hard"]) == {"answer_loss"}
    for row in rows_of(tmp_path / "cota"):
        expected = -np.expm1(-len(row["question"]) / 100)
        assert row["difficulty_score"] == pytest.approx(expected)
        parts = json.loads(row["provenance"])["difficulty_components"]
        assert parts == {"answer_loss": pytest.approx(expected)}


def test_the_scorer_model_needs_a_model(tmp_path):
    config = PLAIN.replace(difficulty=ALONE.replace(scorer="model"))
    with pytest.raises(ConfigError, match=r"difficulty\.scorer model needs a base model"):
        prepare_folder(config, tmp_path / "cota")
    assert names_in(tmp_path) == set()


def test_the_rank_correlation_is_of_the_composite_score_on_few_samples(tmp_path):
    asked = []

    def answer_losses(examples):
        asked.extend(examples)
        return [example.difficulty_score for example in examples]

    config = PLAIN.replace(difficulty=ALONE.replace(correlation_samples=14))
    summary = prepare_folder(config, tmp_path / "cota", answer_losses=answer_losses)
    assert len({example.id for example in asked}) == 14
    assert Counter(example.task for example in asked) == dict.fromkeys(TASKS, 2)
    found = summary["rank_correlation"]
    assert (found["num_samples"], found["spearman"]) == (14, pytest.approx(1))


@pytest.mark.integration
def test_without_the_correlation_nothing_imports_torch(tmp_path):
    code = (
        "import sys\n"
        "import pixelis.cli.data_prep, pixelis.runs.prepare, pixelis.models.token_count\n"
        "from pathlib import Path\n"
        "from pixelis.config import DataPrepConfig, load_config\n"
        "from pixelis.data_prep.prepare import prepare_folder\n"
        "keys = {'num_samples': 6, 'num_workers': 2, 'difficulty.correlation_samples': 0}\n"
        f"prepare_folder(load_config(DataPrepConfig, None, keys), Path({str(tmp_path)!r}) / 'c')\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "[]\n", "")


def test_a_taken_place_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(prepare, "open_stream", lambda *_: pytest.fail("work was done"))
    with pytest.raises(DataError, match="holds other files"):
        prepare_folder(PLAIN, tmp_path)


def test_progress_counts_every_example(tmp_path):
    seen = []

    class Progress:
        def __init__(self, what, total):
            seen.append((what, total))

        def __enter__(self):
            return seen.append

        def __exit__(self, *error):
            pass

    prepare_folder(PLAIN, tmp_path / "cota", progress=Progress)
    assert seen[0] == ("examples", 21) and sum(seen[1:]) == 21


# Imports, from the user's files to the data folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def sample(number, **changes):
    step = {
        "thought": "Look closer.",
        "operation": "ZOOM_IN",
        "arguments": {"bbox": [0, 0, 16, 16], "factor": 2},
    }
    plain = {"id": f"r{number}", "question": f"What is in {number}?", "image": f"{number}.png"}
    return {**plain, "trajectory": [step] * (number % 3), "answer": "noise", **changes}


def chat(number):
    turns = [
        {"role": "user", "content": f"<image>What is in {number}?"},
        {"role": "assistant", "content": "noise"},
    ]
    return {"id": f"r{number}", "messages": turns, "images": [f"{number}.png"]}


def conversation(number):
    turns = [
        {"from": "human", "value": f"<image>\nWhat is in {number}?"},
        {"from": "gpt", "value": "noise"},
    ]
    return {"id": f"r{number}", "conversations": turns, "image": f"{number}.png"}


def write_lines(records, path):
    lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
    path.write_text("\n".join(lines), encoding="utf-8")


def imported(path, **changes):
    return PLAIN.replace(input=str(path), **changes)


WRITERS = {
    "samples.json": lambda records, path: path.write_text(json.dumps({"samples": records})),
    "list.json": lambda records, path: path.write_text(json.dumps(records)),
    "lines.jsonl": write_lines,
    "rows.parquet": lambda records, path: pq.write_table(pa.Table.from_pylist(records), path),
}


@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize(
    ("make", "found_format"),
    [(sample, "cota"), (chat, "messages"), (conversation, "conversations")],
)
def test_every_format_in_every_file_becomes_data(photos, tmp_path, file, make, found_format):
    WRITERS[file]([make(number) for number in range(20)], photos / file)
    summary = prepare_folder(imported(photos / file), tmp_path / "cota")
    assert names_in(tmp_path / "cota") == {*FILES, "rejected.jsonl"}
    assert (tmp_path / "cota" / "rejected.jsonl").read_bytes() == b""
    assert (summary["num_samples"], summary["rejected"]) == (20, {})
    assert summary["source"] == {
        "name": "input",
        "format": found_format,
        "files": [file],
        "records": 20,
        "calls": {"replayed": 19 if make is sample else 0, "disagreed": 0, "not_replayed": 0},
        "told": {},
    }
    rows = rows_of(tmp_path / "cota")
    assert {row["id"] for row in rows} == {f"r{number}" for number in range(20)}
    for row in rows:
        number = row["id"][1:]
        example = from_row(row)
        assert (example.question, example.answer) == (f"What is in {number}?", "noise")
        assert row["images"][0]["bytes"] == (photos / f"{number}.png").read_bytes()
        assert len(example.trajectory) == (int(number) % 3 if make is sample else 0)


def test_questions_without_steps_are_of_one_difficulty_and_it_says_so(photos, tmp_path):
    records = [chat(number) for number in range(12)]
    for number, record in enumerate(records):
        record["messages"][0]["content"] += " Look again." * number
    write_lines(records, photos / "chats.jsonl")
    config = imported(photos / "chats.jsonl")
    summary = prepare_folder(config, tmp_path / "cota")
    assert {row["difficulty"] for row in rows_of(tmp_path / "cota")} == {"simple"}
    assert summary["thresholds"]["undivided"] == ["imported"]
    assert (
        "one difficulty: most examples of imported have the same score, so all of them are simple; "
        "difficulty.scorer multi or model sees more"
    ) in format_summary(summary).splitlines()
    # It does: the questions differ in length.
    multi = config.replace(difficulty=ALONE.replace(scorer="multi"))
    summary = prepare_folder(multi, tmp_path / "cota")
    assert summary["thresholds"]["undivided"] == []
    assert {row["difficulty"] for row in rows_of(tmp_path / "cota")} == set(DIFFICULTIES)
    assert "one difficulty" not in format_summary(summary)


def test_tasks_are_cut_or_not_each_by_itself(photos, tmp_path):
    plain = [sample(number, task="plain", trajectory=[]) for number in range(9)]
    stepped = [sample(number, task="stepped") for number in range(9, 18)]
    write_lines([*plain, *stepped], photos / "some.jsonl")
    summary = prepare_folder(imported(photos / "some.jsonl"), tmp_path / "cota")
    assert summary["thresholds"]["undivided"] == ["plain"]
    assert summary["by_difficulty_and_task"] == {
        "hard/stepped": 3, "medium/stepped": 3, "simple/plain": 9, "simple/stepped": 3,
    }  # fmt: skip


@pytest.mark.integration
def test_an_import_is_the_same_bytes_with_any_number_of_workers(photos, tmp_path):
    records = [sample(number) for number in range(20)] * 3
    write_lines([*records, "{", sample(3, id="", image="gone.png")], photos / "lines.jsonl")
    for workers in (1, 2, 8):
        config = imported(photos, max_rejected=0.9, num_workers=workers)
        prepare_folder(config, tmp_path / f"cota{workers}")
    assert contents(tmp_path / "cota1") == contents(tmp_path / "cota2")
    assert contents(tmp_path / "cota1") == contents(tmp_path / "cota8")


def test_too_many_rejections_are_an_error_that_leaves_its_reasons(photos, tmp_path):
    out, kept = tmp_path / "cota", tmp_path / "cota.rejected.jsonl"
    path = photos / "some.jsonl"
    write_lines([*(sample(number) for number in range(18)), "{", sample(0)], path)
    with pytest.raises(DataError) as error:
        prepare_folder(imported(path), out)
    assert str(error.value) == (
        f"2 of 20 records of {path} were rejected (10.0%), more than max_rejected 0.05 allows: "
        "1 broken_json (some.jsonl:19: not JSON: Expecting property name enclosed in double "
        "quotes: line 2 column 1 (char 2)), 1 duplicate_id (some.jsonl:20: the id 'r0' and its "
        f"content came before); see {kept}"
    )
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 2
    assert names_in(tmp_path) == {"mine", kept.name}
    prepare_folder(imported(path, max_rejected=0.1), out)
    assert names_in(tmp_path) == {"mine", "cota"}, "the reasons are in the folder now"


def test_old_data_survives_an_input_that_is_refused(photos, tmp_path):
    prepare_folder(PLAIN, tmp_path / "cota")
    before = contents(tmp_path / "cota")
    write_lines([sample(0), "{"], photos / "some.jsonl")
    with pytest.raises(DataError):
        prepare_folder(imported(photos), tmp_path / "cota")
    assert contents(tmp_path / "cota") == before


def test_an_input_of_which_nothing_can_be_used(photos, tmp_path):
    path = photos / "some.jsonl"
    write_lines([sample(number, answer=None) for number in range(3)], path)
    message = (
        rf"^3 of 3 records of {path} were rejected \(100.0%\), all: 3 no_answer \(some.jsonl:1: "
        r"the question has no answer: 'What is in 0\?'\); see "
    )
    with pytest.raises(DataError, match=message):
        prepare_folder(imported(path, max_rejected=1.0), tmp_path / "cota")
    assert names_in(tmp_path) == {"mine", "cota.rejected.jsonl"}


@pytest.mark.parametrize("file", ["samples.json", "list.json", "rows.parquet", "lines.jsonl"])
def test_an_input_without_records(photos, tmp_path, file):
    if file == "rows.parquet":
        pq.write_table(pa.table({"question": pa.array([], pa.string())}), photos / file)
    else:
        WRITERS[file]([], photos / file)
    with pytest.raises(DataError, match=rf"^input {photos / file}"):
        prepare_folder(imported(photos / file, input_format="cota"), tmp_path / "cota")
    assert names_in(tmp_path) == {"mine"}


def test_images_may_lie_in_another_folder(photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write_lines([sample(number) for number in range(4)], tmp_path / "elsewhere" / "some.jsonl")
    config = imported(tmp_path / "elsewhere", image_folder=str(photos))
    assert prepare_folder(config, tmp_path / "cota")["num_samples"] == 4


def test_examples_longer_than_max_length_are_rejected(photos, tmp_path):
    records = [sample(number) for number in range(19)]
    write_lines([*records, sample(19, question="What is it? " * 9)], photos / "some.jsonl")
    config = imported(photos, max_length=100)
    summary = prepare_folder(
        config, tmp_path / "cota", count_tokens=lambda example: len(example.question)
    )
    assert (summary["num_samples"], summary["rejected"]) == (19, {"too_long": 1})


# Calls of other tools


def zoomed(number, **changes):
    """A chat that zooms as DeepEyes does; of every fifth another image is shown."""
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 16, 12], "label": "a"}}
    turns = [
        ("user", f"<image>What is in {number}?"),
        ("assistant", f"Look.<tool_call>{json.dumps(call | changes)}</tool_call>"),
        ("user", "<tool_response><image></tool_response>"),
        ("assistant", "noise"),
    ]
    shown = f"{number}.png" if number % 5 == 0 else f"crop{number}.png"
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"id": f"r{number}", "messages": messages, "images": [f"{number}.png", shown]}


@pytest.fixture
def zooms(photos):
    """A file of 20 such chats, with their images."""
    for number in range(20):
        with Image.open(photos / f"{number}.png") as image:
            image.crop((0, 0, 16, 12)).save(photos / f"crop{number}.png")
    path = photos / "some.jsonl"
    write_lines([zoomed(number) for number in range(20)], path)
    return path


def with_tools(path, tools, **changes):
    return imported(path, **{"import": {"tools": tools}}, **changes)


def test_calls_of_mapped_tools_are_counted_in_summary_and_table(zooms, tmp_path):
    summary = prepare_folder(with_tools(zooms, "deepeyes"), tmp_path / "cota")
    calls = {"replayed": 16, "disagreed": 4, "not_replayed": 0}
    assert (summary["num_samples"], summary["source"]["calls"]) == (20, calls)
    assert "calls: 16 replayed / 4 disagreed / 0 not replayed" in format_summary(summary)
    for row in rows_of(tmp_path / "cota"):
        (step,) = from_row(row).trajectory
        assert step.arguments == {"bbox": [0, 0, 16, 12], "factor": 1}
        agrees = int(row["id"][1:]) % 5 > 0
        expected = ["replayed" if agrees else "disagreed"]
        assert json.loads(row["provenance"])["replays"] == expected
        assert step.result == {"size": [16, 12] if agrees else [32, 24]}


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        (
            None,
            "); tool 'image_zoom_in_tool' is not mapped; "
            "import.tools=deepeyes or qwen would map it, records: 20; see ",
        ),
        (
            {"image_zoom_in_tool": {"operation": "ZOOM_IN", "arguments": {"bbox_2d": "bbox"}}},
            "); argument 'label' of tool 'image_zoom_in_tool' is not mapped, records: 20; see ",
        ),
    ],
)
def test_an_import_of_unmapped_calls_says_which(zooms, tmp_path, tools, told):
    with pytest.raises(DataError, match=r"^20 of 20 records of ") as error:
        prepare_folder(with_tools(zooms, tools), tmp_path / "cota")
    assert "all: 20 unknown_operation (some.jsonl:1: " in str(error.value)
    assert told in str(error.value)


def test_few_unmapped_calls_and_boxes_are_told_in_the_table(zooms, tmp_path):
    others = [
        zoomed(0, name="image_rotate_tool"),
        *(zoomed(n, arguments={"bbox_2d": [0, 0, 500, 500]}) for n in (1, 2)),
    ]
    write_lines([*others, *(zoomed(number) for number in range(3, 20))], zooms)
    config = with_tools(zooms, "deepeyes", max_rejected=0.2)
    lines = format_summary(prepare_folder(config, tmp_path / "cota")).splitlines()
    for refused in ("2 (outside_image)", "1 (unknown_operation)"):
        assert any(line.startswith(f"refused: {refused}, first some.jsonl:") for line in lines)
    assert "tool 'image_rotate_tool' is not mapped, records: 1" in lines
    assert (
        "bbox_2d of image_zoom_in_tool is empty or outside its image in pixels; thousandths would "
        "fit, records: 2"
    ) in lines


def test_a_mapping_is_checked_before_any_work(zooms, tmp_path):
    tools = {"image_zoom_in_tool": {"operation": "zoom"}}
    with pytest.raises(ConfigError, match=r"^import\.tools\.image_zoom_in_tool\.operation must be"):
        prepare_folder(with_tools(zooms, tools), tmp_path / "cota")
    assert names_in(tmp_path) == {"mine"}


# COCO


def write_coco(folder, *, broken=0, num_images=20):
    """Two dogs, or a dog and a cat, in every image."""
    annotations = [
        {
            "id": number,
            "image_id": number // 2,
            "category_id": number % 2 if number % 4 > 1 else 0,
            "bbox": [2 + 14 * (number % 2), 4, 12, 12],
            "area": 144,
            "iscrowd": 0,
            "segmentation": [],
        }
        for number in range(2 * num_images)
    ]
    for number in range(broken):
        annotations[number]["bbox"] = "none"
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": 32, "height": 24} for n in range(num_images)
        ],
        "categories": [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("source", ["scenes", "coco"])
def test_a_coco_file_is_told_by_its_content_and_asked_about(photos, tmp_path, source):
    write_coco(photos)
    config = imported(photos, source=source, tasks=("object_counting",))
    summary = prepare_folder(config, tmp_path / "cota")
    assert (summary["num_samples"], summary["source"]["name"]) == (21, "coco")
    assert COMPONENTS and names_in(tmp_path / "cota") == FILES


def test_broken_annotations_are_written_down(photos, tmp_path):
    write_coco(photos, broken=2)
    config = imported(photos, source="coco", tasks=("object_counting",))
    summary = prepare_folder(config.replace(max_rejected=0.2), tmp_path / "cota")
    lines = (tmp_path / "cota" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 == sum(summary["rejected"].values())


def test_a_task_that_photographs_cannot_give_is_left_out_and_said(photos, tmp_path):
    write_coco(photos)
    config = imported(photos, source="coco", tasks=None)
    stream = open_stream(config, None)
    # Of boxes on noise no colour is known for sure; what is known, the operations do not find.
    left_out = stream.source["tasks_left_out"]
    assert "attribute_recognition" in left_out
    assert "attribute_recognition is left out: the source 'coco' gave no" in stream.description
    summary = prepare_folder(config, tmp_path / "cota", stream=stream)
    assert summary["source"]["tasks_left_out"] == left_out and "object_counting" not in left_out
    assert not set(summary["by_task"]) & set(left_out)
    with pytest.raises(DataError, match="gave no attribute_recognition example of type positive"):
        prepare_folder(config.replace(tasks=("attribute_recognition",)), tmp_path / "asked")


COUNT_AND_PLACE = ("object_counting", "spatial_reasoning")
# In these images there is no place for a wrong look.
POSITIVE = {"source": "coco", "self_correction_ratio": 0.0}


@pytest.mark.parametrize(("num_images", "num_samples"), [(2, 40), (3, 54)])
@pytest.mark.parametrize("negatives", [False, True])
def test_in_a_small_set_a_task_that_runs_out_gives_its_share_to_the_others(
    photos, tmp_path, num_images, num_samples, negatives
):
    write_coco(photos, num_images=num_images)
    config = imported(photos, tasks=COUNT_AND_PLACE, num_samples=num_samples, **POSITIVE)
    config = config.replace(include_negatives=negatives)
    summary = prepare_folder(config, tmp_path / "cota")
    counted = summary["by_task"]["object_counting"]
    assert sum(summary["by_task"].values()) == num_samples and 0 < counted < num_samples // 2
    planned = num_samples // 2
    assert summary["source"]["ran_out"] == {
        "object_counting": {"planned": planned, "made": counted}
    }
    line = f"ran out: object_counting has {counted} of {planned} planned examples; "
    assert f"{line}others have the rest" in format_summary(summary).splitlines()
    assert summary["top_answer_by_task"]["object_counting"]["share"] <= 0.5 + 0.5 / counted


@pytest.mark.parametrize("tasks", [("object_counting",), COUNT_AND_PLACE, None])
@pytest.mark.parametrize("num_images", [2, 3])
def test_a_small_set_names_the_largest_number_that_works(photos, tmp_path, tasks, num_images):
    write_coco(photos, num_images=num_images)

    def make(num_samples):
        config = imported(photos, tasks=tasks, num_samples=num_samples, **POSITIVE)
        return prepare_folder(config, tmp_path / "cota")

    with pytest.raises(DataError) as caught:
        make(2000)
    message = (
        r"num_samples must be at most (\d+), got 2000 \(the source coco has no other example after "
    )
    most = int(re.match(message, str(caught.value))[1])
    assert make(most)["num_samples"] == most
    with pytest.raises(DataError, match=f"^num_samples must be at most {most}, got {most + 1} "):
        make(most + 1)


@pytest.mark.integration
def test_a_small_set_is_the_same_bytes_with_any_number_of_workers(photos, tmp_path):
    write_coco(photos, num_images=3)
    for workers in (1, 2):
        config = imported(photos, num_samples=66, num_workers=workers, **POSITIVE)
        prepare_folder(config, tmp_path / f"cota{workers}")
    assert contents(tmp_path / "cota1") == contents(tmp_path / "cota2")
