"""Data that a training would stumble over is refused before it begins."""

import hashlib
import json
import re

import pyarrow.parquet as pq
import pytest

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import SUMMARY_FILE, difficulty_file, load_split, write_rows
from pixelis.errors import ConfigError, DataError
from pixelis.training.inputs import (
    check_inputs,
    check_model,
    data_digest,
    load_trusted,
    trusted_digests,
)

CURRICULUM = CurriculumConfig.from_dict({})


@pytest.fixture
def rewrite(folder):
    """Change the rows of a difficulty's file."""

    def change(difficulty, edit):
        path = folder / difficulty_file(difficulty)
        rows = edit(pq.read_table(path).to_pylist())
        write_rows(rows, path)
        return path

    return change


def test_data_as_data_prep_makes_it_passes(folder):
    check_inputs(folder, CURRICULUM)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    ("difficulty", "stage", "share"), [("simple", "simple", "1"), ("hard", "balanced", "0.2")]
)
def test_a_difficulty_without_examples(folder, rewrite, split, difficulty, stage, share):
    rewrite(difficulty, lambda rows: [row for row in rows if row["split"] != split])
    with pytest.raises(ConfigError) as caught:
        check_inputs(folder, CURRICULUM)
    assert str(caught.value) == (
        f"Stage '{stage}' takes {share} of its examples from difficulty '{difficulty}', "
        f"but the {split} split has no example of it."
    )


def test_a_difficulty_that_no_mix_needs_may_be_empty(folder, rewrite):
    rewrite("hard", lambda rows: [])
    easy = [{"name": "easy", "difficulty_mix": {"simple": 0.5, "medium": 0.5, "hard": 0.0}}]
    check_inputs(folder, CurriculumConfig.from_dict({"stages": easy}))


@pytest.mark.parametrize(
    ("only", "stage", "share", "missing"),
    [("simple", "balanced", 0.4, "medium"), ("medium", "simple", 1, "simple")],
)
def test_data_of_one_difficulty_are_for_a_curriculum_that_is_off(
    folder, rewrite, only, stage, share, missing
):
    for difficulty in {*DIFFICULTIES} - {only}:
        rewrite(difficulty, lambda rows: [])
    check_inputs(folder, CURRICULUM.replace(enabled=False))
    with pytest.raises(ConfigError) as caught:
        check_inputs(folder, CURRICULUM)
    assert str(caught.value) == (
        f"Stage '{stage}' takes {share} of its examples from difficulty '{missing}', but the train "
        f"split has no example of it. All examples in {folder} are {only}: make them again with "
        "another difficulty.scorer (multi or model), or let sft train on all of them with "
        "curriculum.enabled=false"
    )


@pytest.fixture
def trusted(folder, tmp_path):
    """The validation split as a file of `data.trusted`, of which the split keeps only simple."""
    path = tmp_path / "mended.parquet"
    files = [folder / difficulty_file(name) for name in DIFFICULTIES]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    write_rows([row for row in rows if row["split"] == "validation"], path)
    for file in files[1:]:
        kept = pq.read_table(file).to_pylist()
        write_rows([row for row in kept if row["split"] != "validation"], file)
    return path


def edit_trusted(path, edit):
    write_rows(edit(pq.read_table(path).to_pylist()), path)


def test_trusted_examples_take_the_place_of_the_validation_split(folder, trusted):
    check_inputs(folder, CURRICULUM, trusted=trusted)
    with pytest.raises(ConfigError, match="the validation split has no example of it"):
        check_inputs(folder, CURRICULUM)
    # A folder is read as a whole, and rows are used whatever split they are in.
    edit_trusted(trusted, lambda rows: [row | {"split": "train"} for row in rows])
    check_inputs(folder, CURRICULUM, trusted=trusted.parent)
    found = load_trusted(trusted.parent)
    assert {name: len(rows) for name, rows in found.items()} == {
        name: len(rows) for name, rows in load_trusted(trusted).items()
    }
    assert all(len(rows) for rows in found.values())
    digest = hashlib.sha256(trusted.read_bytes()).hexdigest()
    moved = trusted.rename(trusted.with_name("moved.parquet"))
    assert trusted_digests(moved) == {"trusted 1": digest}
    assert trusted_digests(None) == {}


def test_a_difficulty_that_trusted_examples_lack(folder, trusted):
    edit_trusted(trusted, lambda rows: [row for row in rows if row["difficulty"] != "medium"])
    with pytest.raises(ConfigError) as caught:
        check_inputs(folder, CURRICULUM, trusted=trusted)
    assert str(caught.value) == (
        "Stage 'balanced' takes 0.4 of its examples from difficulty 'medium', "
        f"but data.trusted {trusted} has no example of it."
    )


def test_trusted_rows_of_an_unknown_difficulty(folder, trusted):
    edit_trusted(
        trusted, lambda rows: [*rows, *(rows[0] | {"difficulty": x} for x in ("Hard", ""))]
    )
    with pytest.raises(DataError) as caught:
        check_inputs(folder, CURRICULUM, trusted=trusted)
    assert str(caught.value) == (
        f"data.trusted {trusted} must hold rows of the difficulties simple, medium, hard, "
        "got 2 of others"
    )


def test_one_trained_image_among_others_is_enough(folder, trusted):
    rows = load_split(folder, "train")["simple"]
    (seen,) = next(row["images"] for row in rows if len(row["images"]) == 1)
    edit_trusted(trusted, lambda own: [own[0] | {"images": [*own[0]["images"], seen]}, *own[1:]])
    with pytest.raises(DataError, match=r", got 1 that are$"):
        check_inputs(folder, CURRICULUM, trusted=trusted)


@pytest.mark.parametrize("has_digest", [True, False])
def test_trusted_images_that_are_trained_or_tested_on(folder, trusted, has_digest):
    seen = {
        split: next(rows for rows in load_split(folder, split).values() if len(rows))[0]
        for split in ("train", "test")
    }

    def add(rows):
        for row in seen.values():
            provenance = json.loads(row["provenance"])
            if not has_digest:
                provenance["image_digest"] = [1]
            rows.append(row | {"provenance": json.dumps(provenance), "split": "validation"})
        return [*rows, rows[-1]]

    edit_trusted(trusted, add)
    with pytest.raises(DataError) as caught:
        check_inputs(folder, CURRICULUM, trusted=trusted)
    assert str(caught.value) == (
        f"data.trusted {trusted} must hold images that are not in the train or test split of "
        f"{folder}, got 2 that are"
    )


def test_trusted_files_that_cannot_be_read(folder, trusted, tmp_path):
    for path in (tmp_path / "none.parquet", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        with pytest.raises(DataError) as caught:
            check_inputs(folder, CURRICULUM, trusted=path)
        assert str(caught.value) == (
            f"data.trusted must be a parquet file of data-prep, or a folder of them, got "
            f"{path}{'' if path.is_dir() else ', which does not exist'}"
        )

    def harm(rows):
        cut(rows[0]["images"][0])
        return rows

    edit_trusted(trusted, lambda rows: [rows[0] | {"provenance": "{"}, *rows[1:]])
    with pytest.raises(DataError, match="provenance cannot be read"):
        check_inputs(folder, CURRICULUM, trusted=trusted)
    edit_trusted(trusted, lambda rows: [row | {"provenance": "{}"} for row in rows])
    edit_trusted(trusted, harm)
    with pytest.raises(DataError, match=f"^{re.escape(str(trusted))}: an image of example "):
        check_inputs(folder, CURRICULUM, trusted=trusted)
    trusted.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="mended.parquet cannot be read as parquet"):
        check_inputs(folder, CURRICULUM, trusted=trusted)


def cut(image):
    image["bytes"] = image["bytes"][:-40]


def flip(image):
    content = bytearray(image["bytes"])
    content[len(content) // 2] ^= 1
    image["bytes"] = bytes(content)


@pytest.mark.parametrize(
    ("split", "where", "harm"),
    [
        ("train", "question", cut),
        ("validation", "question", flip),
        ("train", "question", lambda image: image.update(bytes=b"no image")),
        ("validation", "question", lambda image: image.update(bytes=b"")),
        ("train", "question", lambda image: image.update(bytes=None)),
        ("train", "observation", cut),
    ],
    ids=range(6),
)
def test_an_image_that_does_not_open(folder, rewrite, split, where, harm):
    broken = []

    def edit(rows):
        for row in rows:
            steps = [step["image"] for step in row["trajectory"] or () if step["image"]]
            images = row["images"] if where == "question" else steps
            if row["split"] == split and images and not broken:
                harm(images[0])
                broken.append(row["id"])
        return rows

    path = rewrite("hard", edit)
    with pytest.raises(DataError) as caught:
        check_inputs(folder, CURRICULUM)
    assert str(caught.value) == (
        f"{path}: an image of example {broken[0]} does not open; "
        "images are embedded as PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM, of at most 25000000 pixels"
    )


def test_the_digests_are_the_summary_s(folder):
    summary = json.loads((folder / SUMMARY_FILE).read_text())
    assert data_digest(folder) == summary["sha256"]


def test_a_file_that_data_prep_did_not_write(folder, rewrite):
    path = rewrite("medium", lambda rows: rows[:-1])
    expected = f"{path} is not what data-prep wrote (summary.json has another SHA-256)"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        data_digest(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"sha256": {}}', '{"sha256": null}', '{"sha256": "a"}']
)
def test_a_summary_without_digests(folder, content):
    (folder / SUMMARY_FILE).write_text(content)
    with pytest.raises(DataError) as caught:
        data_digest(folder)
    assert str(caught.value) == (
        f"{folder / SUMMARY_FILE} does not hold the SHA-256 of each data file; run data-prep again"
    )


def test_a_folder_that_lacks_a_file(folder):
    (folder / "cota_hard.parquet").unlink()
    for call in (lambda: check_inputs(folder, CURRICULUM), lambda: data_digest(folder)):
        with pytest.raises(DataError, match="is incomplete: it lacks cota_hard.parquet"):
            call()


# Kernels that only a GPU runs


def ask_for(kernel):
    if kernel == "liger":
        check_model(ModelConfig(), TrainingConfig(use_liger_kernel=True))
    else:
        check_model(ModelConfig(attn_implementation="flash_attention_2"))


@pytest.mark.parametrize(
    ("kernel", "named", "package"),
    [
        ("liger", ("training.use_liger_kernel", "true"), "liger-kernel"),
        ("flash", ("model.attn_implementation", "flash_attention_2"), "flash-attn"),
    ],
)
def test_a_kernel_for_a_gpu_is_refused_where_it_cannot_run(monkeypatch, kernel, named, package):
    key, value = named
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        ask_for(kernel)
    assert str(caught.value) == f"{key} must not be {value} without a GPU that CUDA sees"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"^{key} {value} needs the package {package}$"):
        ask_for(kernel)
