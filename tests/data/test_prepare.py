import hashlib
import json
from collections import Counter

import pytest
from PIL import Image

from pixelis.config import DataPrepConfig, flatten
from pixelis.curriculum.difficulty import COMPONENTS, combine
from pixelis.data import prepare
from pixelis.data.example import DIFFICULTIES, SPLITS
from pixelis.data.generate import image_digest
from pixelis.data.prepare import (
    assign_difficulty,
    plan_samples,
    prepare_folder,
    prepare_scenes,
    score_components,
    split_of,
    summarise,
    write_folder,
)
from pixelis.data.store import from_row, load_split
from pixelis.data.tasks import TASKS
from pixelis.errors import ConfigError, DataError

FILES = {"cota_simple.parquet", "cota_medium.parquet", "cota_hard.parquet", "summary.json"}
RATIOS = {
    "self_correction": 0.1,
    "outcome_negative": 0.1,
    "trap_perceptual": 0.1,
    "trap_logical": 0.1,
}
NUM_SAMPLES = 300
CONFIG = {
    "num_samples": NUM_SAMPLES,
    "seed": 3,
    "tasks": tuple(TASKS),
    "ratios": RATIOS,
    "fractions": (0.12, 0.12),
    "weights": dict(zip(COMPONENTS, (0.3, 0.25, 0.2, 0.15, 0.1), strict=True)),
    "percentiles": (33.0, 66.0),
    "split_by_category": True,
    "num_workers": 1,
}


@pytest.fixture(scope="module")
def rows():
    return prepare_scenes(**CONFIG)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The plan: what is made


def test_as_many_as_asked_for_with_tasks_in_turn_and_types_in_exact_shares(rows):
    assert len(rows) == NUM_SAMPLES == len({row["id"] for row in rows})
    assert Counter(row["task"] for row in rows) == dict.fromkeys(TASKS, NUM_SAMPLES // 5)
    expected = {name: 30 for name in RATIOS} | {"positive": 180}
    assert Counter(row["sample_type"] for row in rows) == expected


@pytest.mark.parametrize("num_samples", [1, 2, 7, 101])
def test_any_number_can_be_planned(num_samples):
    plan = plan_samples(num_samples, 0, list(TASKS), RATIOS)
    assert len(plan) == num_samples
    counts = Counter(task for task, _ in plan)
    assert max(counts.values()) - min(counts.get(task, 0) for task in TASKS) <= 1
    types = Counter(kind for _, kind in plan)
    assert all(types[name] == round(0.1 * num_samples) for name in RATIOS)


def test_types_are_spread_over_tasks_and_places_by_the_seed():
    first, again, other = (plan_samples(1000, seed, list(TASKS), RATIOS) for seed in (1, 1, 2))
    assert first == again != other
    assert {task for task, kind in first if kind == "trap_logical"} == set(TASKS)
    assert {kind for _, kind in first[:60]} == {*RATIOS, "positive"}


def test_an_unknown_task_lists_what_exists():
    message = f"^tasks must be among {', '.join(TASKS)}, got 'counting'$"
    with pytest.raises(ConfigError, match=message):
        plan_samples(10, 0, ["object_counting", "counting"], {})


# Splits: by the image alone


def test_a_split_is_a_function_of_the_image_s_digest(rows):
    for row in rows:
        example = from_row(row)
        digest = image_digest(example.images[0])
        assert example.provenance["image_digest"] == digest
        assert row["split"] == split_of(digest, 0.12, 0.12)


def test_splits_have_their_shares_of_many_images():
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(4000)]
    counts = Counter(split_of(digest, 0.2, 0.1) for digest in digests)
    assert abs(counts["validation"] / 4000 - 0.2) < 0.02
    assert abs(counts["test"] / 4000 - 0.1) < 0.02
    assert set(counts) == set(SPLITS)


def test_a_larger_validation_share_takes_from_train_alone():
    for number in range(500):
        before, after = split_of(str(number), 0.1, 0.1), split_of(str(number), 0.3, 0.1)
        assert (before == "test") == (after == "test")
        assert before != "validation" or after == "validation"


# Difficulty: by rank within task and split


def test_every_difficulty_holds_every_task(rows):
    found = {(row["difficulty"], row["task"]) for row in rows}
    assert found == {(difficulty, task) for difficulty in DIFFICULTIES for task in TASKS}


def test_difficulty_shares_are_exact_to_one_within_each_task_and_split(rows):
    groups = Counter((row["task"], row["split"]) for row in rows)
    found = Counter((row["task"], row["split"], row["difficulty"]) for row in rows)
    assert len(groups) == 15
    for (task, split), size in groups.items():
        for difficulty, share in zip(DIFFICULTIES, (0.33, 0.33, 0.34), strict=True):
            assert abs(found[task, split, difficulty] - share * size) <= 1


def test_a_harder_file_holds_higher_scores_of_each_task_and_split(rows):
    for task in TASKS:
        for split in SPLITS:
            scores = {
                difficulty: [
                    row["difficulty_score"]
                    for row in rows
                    if (row["task"], row["split"], row["difficulty"]) == (task, split, difficulty)
                ]
                for difficulty in DIFFICULTIES
            }
            for easier, harder in (("simple", "medium"), ("medium", "hard")):
                if scores[easier] and scores[harder]:
                    assert max(scores[easier]) <= min(scores[harder])


def test_the_score_is_what_the_trajectory_says(rows):
    for row in rows[::10]:
        components = score_components(from_row(row))
        assert json.loads(row["provenance"])["difficulty_components"] == components
        assert row["difficulty_score"] == combine(components, CONFIG["weights"])


def test_a_planted_step_counts_as_a_correction(rows):
    (row, *_) = [row for row in rows if row["sample_type"] == "self_correction"]
    example = from_row(row)
    components = score_components(example)
    assert components["errors"] == 0.5
    steps = len(example.trajectory)
    plain = [row for row in rows if row["sample_type"] == "positive"]
    same_length = [r for r in map(from_row, plain) if len(r.trajectory) == steps]
    assert score_components(same_length[0])["trajectory"] == components["trajectory"]


def test_ranked_all_together_difficulty_follows_the_task(rows):
    copies = [dict(row) for row in rows]
    assign_difficulty(copies, (33, 66), by_task=False)
    hard = Counter(row["task"] for row in copies if row["difficulty"] == "hard")
    assert hard["geometric_comparison"] > 3 * hard["attribute_recognition"]
    sizes = Counter((row["split"], row["difficulty"]) for row in copies)
    for split in SPLITS:
        total = sum(sizes[split, difficulty] for difficulty in DIFFICULTIES)
        assert all(abs(sizes[split, d] - total / 3) <= 2 for d in DIFFICULTIES)


# The folder: whole or not at all


def test_one_and_two_workers_write_the_same_bytes(tmp_path):
    config = {"num_samples": 120, "include_traps": True, "include_negatives": True}
    summaries = [
        prepare_folder(DataPrepConfig(num_workers=n, **config), tmp_path / str(n)) for n in (1, 2)
    ]
    assert summaries[0]["sha256"] == summaries[1]["sha256"]
    for name in FILES - {"summary.json"}:
        one, two = ((tmp_path / str(n) / name).read_bytes() for n in (1, 2))
        assert one == two
        assert hashlib.sha256(one).hexdigest() == summaries[0]["sha256"][name]


def test_another_seed_writes_other_bytes(tmp_path):
    first, second = (
        prepare_folder(DataPrepConfig(num_samples=10, seed=seed, num_workers=1), tmp_path / "data")
        for seed in (0, 1)
    )
    assert not set(first["sha256"].values()) & set(second["sha256"].values())


def test_the_configuration_decides_what_is_made(tmp_path):
    given = {"num_samples": 40, "num_workers": 1, "self_correction_ratio": 0.25}
    plain = prepare_folder(DataPrepConfig(**given), tmp_path / "plain")
    assert plain["by_sample_type"] == {"positive": 30, "self_correction": 10}
    given |= {"include_negatives": True, "include_traps": True, "tasks": ("object_counting",)}
    full = prepare_folder(DataPrepConfig(**given), tmp_path / "full")
    assert full["by_sample_type"] == {
        "outcome_negative": 4,
        "positive": 18,
        "self_correction": 10,
        "trap_logical": 4,
        "trap_perceptual": 4,
    }
    assert set(full["by_difficulty_and_task"]) == {f"{d}/object_counting" for d in DIFFICULTIES}


def test_the_summary_says_what_is_in_the_files(rows, tmp_path):
    config = flatten(DataPrepConfig(num_samples=NUM_SAMPLES))
    returned = write_folder(rows, summarise(rows, config), tmp_path / "cota")
    assert names_in(tmp_path / "cota") == FILES
    summary = json.loads((tmp_path / "cota/summary.json").read_text(encoding="utf-8"))
    assert summary == returned
    assert summary["num_samples"] == NUM_SAMPLES and summary["config"] == config
    assert summary["by_sample_type"] == {**{name: 30 for name in RATIOS}, "positive": 180}
    for counts in ("by_split_and_difficulty", "by_difficulty_and_task", "by_sample_type"):
        assert sum(summary[counts].values()) == NUM_SAMPLES
    for split in SPLITS:
        loaded = load_split(tmp_path / "cota", split)
        for difficulty in DIFFICULTIES:
            expected = summary["by_split_and_difficulty"][f"{split}/{difficulty}"]
            assert len(loaded[difficulty]) == expected
    for difficulty in DIFFICULTIES:
        scores = [r["difficulty_score"] for r in rows if r["difficulty"] == difficulty]
        found = summary["scores"][difficulty]
        assert (found["min"], found["max"]) == (min(scores), max(scores))
        assert found["mean"] == pytest.approx(sum(scores) / len(scores))


def test_the_files_hold_exactly_the_rows(rows, tmp_path):
    write_folder(rows, {}, tmp_path / "cota")
    found = {}
    for split in SPLITS:
        for difficulty, loaded in load_split(tmp_path / "cota", split).items():
            for row in loaded:
                assert (row["split"], row["difficulty"]) == (split, difficulty)
                found[row["id"]] = row
    assert found == {row["id"]: row for row in rows}


def test_an_output_dir_that_is_a_file(rows, tmp_path):
    taken = tmp_path / "cota"
    taken.write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=f"^output_dir {taken} is a file; name a folder$"):
        write_folder(rows, {}, taken)
    assert taken.read_text(encoding="utf-8") == "mine"
    assert names_in(tmp_path) == {"cota"}


@pytest.mark.parametrize("beside", [set(), {"summary.json"}])
def test_an_output_dir_with_other_files_is_left_alone(rows, tmp_path, beside):
    out = tmp_path / "cota"
    out.mkdir()
    for name in {"notes.txt", *beside}:
        (out / name).write_text("mine", encoding="utf-8")
    before = contents(out)
    message = f"^output_dir {out} holds other files; name an empty or a new folder .*notes.txt"
    with pytest.raises(DataError, match=message):
        write_folder(rows, {}, out)
    assert contents(out) == before and names_in(tmp_path) == {"cota"}


def test_a_taken_place_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(prepare, "prepare_scenes", lambda **_: pytest.fail("work was done"))
    with pytest.raises(DataError, match="holds other files"):
        prepare_folder(DataPrepConfig(), tmp_path)


def test_an_empty_folder_and_an_incomplete_one_are_filled(rows, tmp_path):
    out = tmp_path / "a" / "cota"
    out.mkdir(parents=True)
    write_folder(rows[:3], {}, out)
    assert names_in(out) == FILES
    (out / "summary.json").unlink()
    write_folder(rows[:3], {}, out)
    assert names_in(out) == FILES


def test_a_place_that_cannot_be_written(rows, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = tmp_path / "file" / "cota"
    with pytest.raises(DataError, match=f"^output_dir {out} cannot be written: .*file"):
        write_folder(rows, {}, out)


@pytest.mark.parametrize("stopped_by", [OSError("disk full"), RuntimeError(), KeyboardInterrupt()])
def test_old_files_survive_when_writing_stops_midway(rows, tmp_path, monkeypatch, stopped_by):
    out = tmp_path / "cota"
    write_folder(rows[:6], {}, out)
    before = contents(out)
    write_rows = prepare.write_rows

    def failing(rows, path):
        if "medium" in path.name:
            path.write_bytes(b"half")
            raise stopped_by
        write_rows(rows, path)

    monkeypatch.setattr(prepare, "write_rows", failing)
    expected = DataError if isinstance(stopped_by, OSError) else type(stopped_by)
    with pytest.raises(expected):
        write_folder(rows, {}, out)
    assert contents(out) == before
    assert names_in(tmp_path) == {"cota"}, "nothing half-written is left"


def test_old_files_come_back_when_the_last_move_fails(rows, tmp_path, monkeypatch):
    out = tmp_path / "cota"
    write_folder(rows[:6], {}, out)
    before = contents(out)
    replace = prepare.os.replace

    def failing(source, target):
        if str(source).endswith(".new"):
            raise OSError("no such luck")
        replace(source, target)

    monkeypatch.setattr(prepare.os, "replace", failing)
    message = f"^output_dir {out} cannot be written: no such luck$"
    with pytest.raises(DataError, match=message):
        write_folder(rows, {}, out)
    assert contents(out) == before
    assert names_in(tmp_path) == {"cota"}


def test_new_files_take_the_place_of_the_old_ones(rows, tmp_path):
    write_folder(rows[:6], {"run": 1}, tmp_path / "cota")
    write_folder(rows[6:12], {"run": 2}, tmp_path / "cota")
    assert names_in(tmp_path) == {"cota"} and names_in(tmp_path / "cota") == FILES
    summary = json.loads((tmp_path / "cota/summary.json").read_text(encoding="utf-8"))
    assert summary["run"] == 2


def test_a_link_stays_a_link(rows, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "cota"
    link.symlink_to(tmp_path / "disk", target_is_directory=True)
    for _ in range(2):
        write_folder(rows[:6], {}, link)
        assert link.is_symlink() and names_in(tmp_path / "disk") == FILES
        assert names_in(tmp_path / "here") == {"cota"}
        assert names_in(tmp_path) == {"disk", "here"}


def test_what_a_killed_process_left_is_cleared_away(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.os, "getpid", lambda: 7)
    write_folder(rows[:6], {}, tmp_path / "cota")
    for name in (".cota.7.new", ".cota.7.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("", encoding="utf-8")
    write_folder(rows[6:12], {}, tmp_path / "cota")
    assert names_in(tmp_path) == {"cota"} and names_in(tmp_path / "cota") == FILES


def test_progress_sees_every_row_as_it_is_made():
    seen = []

    def progress(items, total):
        for item in items:
            seen.append(total)
            yield item

    prepare_scenes(**CONFIG | {"num_samples": 12, "progress": progress})
    assert seen == [12] * 12


def test_images_are_stored_as_drawn(rows):
    image = from_row(rows[0]).images[0]
    assert isinstance(image, Image.Image) and (image.mode, image.size) == ("RGB", (112, 112))
