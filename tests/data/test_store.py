import dataclasses
import json
import re

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixelis.data import store
from pixelis.data.example import DIFFICULTIES, Example, Step
from pixelis.data.images import encode_image
from pixelis.data.store import (
    FEATURES,
    SCHEMA,
    GroupedWriter,
    data_files,
    difficulty_file,
    from_row,
    load_split,
    to_row,
    write_rows,
)
from pixelis.errors import DataError


def assert_same(one, two):
    """Equal in every field, and every image pixel by pixel."""

    def plain(example):
        return [
            dataclasses.replace(example, images=(), trajectory=()),
            [dataclasses.replace(step, image=None) for step in example.trajectory],
        ]

    def pixels(example):
        images = [*example.images, *(step.image for step in example.trajectory)]
        return [image and (image.mode, image.size, image.tobytes()) for image in images]

    assert plain(one) == plain(two)
    assert pixels(one) == pixels(two)


@pytest.fixture
def folder(tmp_path, one_of_each):
    """A data folder of one example of each kind; the test split of `hard` is empty."""
    for number, difficulty in enumerate(DIFFICULTIES):
        rows = []
        for index, example in enumerate(one_of_each[number::3]):
            split = ("train", "validation", "train" if difficulty == "hard" else "test")[index % 3]
            rows.append(to_row(dataclasses.replace(example, difficulty=difficulty, split=split)))
        write_rows(rows, tmp_path / difficulty_file(difficulty))
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    return tmp_path


# Example -> row -> example


def test_an_example_survives_the_file(folder, one_of_each):
    loaded = {}
    for split in ("train", "validation", "test"):
        for rows in load_split(folder, split).values():
            loaded |= {row["id"]: from_row(row) for row in rows}
    assert len(loaded) == len(one_of_each)
    for example in one_of_each:
        assert_same(dataclasses.replace(loaded[example.id], difficulty="", split=""), example)
        row = to_row(example)
        assert list(row) == list(FEATURES) and to_row(from_row(row)) == row


def test_any_text_and_any_image_mode_survive():
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    example = Example(
        id="ünï\U0001f600",
        task="t",
        sample_type="positive",
        question='a "quoted"\nline\t\\ <|im_end|>',
        images=(image, image.convert("L"), image.convert("RGBA")),
        trajectory=(Step("", "READ_TEXT", {"bbox": [0, 1, 2, 3]}, {"text": "é"}, None, False),),
        conclusion="",
        answer="ja",
        ground_truth="ja",
        provenance={"nested": {"list": [1, 2.5, None]}},
        difficulty_score=0.1 + 0.2,
    )
    found = from_row(to_row(example))
    assert found.images[0].tobytes() == image.tobytes()
    assert [im.mode for im in found.images] == ["RGB"] * 3
    assert_same(
        found,
        dataclasses.replace(example, images=tuple(im.convert("RGB") for im in example.images)),
    )


# Rows that are broken


def with_step(row, **changes):
    (first, *rest) = row["trajectory"]
    return {**row, "trajectory": [{**first, **changes}, *rest]}


CUT_OFF = encode_image(Image.new("RGB", (60, 40)))[:-30]
NO_IMAGE = r"an image does not open \(.+\)$"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"images": [stored]}, NO_IMAGE)
            for stored in (
                {"bytes": b"", "path": None},
                {"bytes": b"no image", "path": None},
                {"bytes": CUT_OFF, "path": None},
                {"bytes": None, "path": "/somewhere/else.png"},
                None,
            )
        ),
        ({"image": {"bytes": CUT_OFF, "path": None}}, NO_IMAGE),
        *(
            ({name: text}, rf"{name} cannot be read \(.+\)$")
            for name in ("arguments", "result")
            for text in ("{", "", '{"x": ' + "9" * 5000 + "}", "[" * 10**5)
        ),
        *(
            ({"arguments": text}, f"arguments must be a JSON object, got {re.escape(text)}")
            for text in ("[1, 2]", "null", '"text"', "3")
        ),
        ({"thought": None}, "thought must be a text, got None"),
        ({"supervised": None}, "supervised must be true or false, got None"),
        ({"question": None}, "question must be a text, got None"),
        ({"result": None}, "result must be a text, got None"),
        ({"provenance": "{"}, "provenance cannot be read"),
    ],
    ids=range(23),
)
def test_a_broken_row_is_refused_with_its_example(one_of_each, change, message):
    row = to_row(one_of_each[0])
    row = row | change if change.keys() <= row.keys() else with_step(row, **change)
    with pytest.raises(DataError, match=f"^example {row['id']}: {message}"):
        from_row(row)


@pytest.mark.parametrize("nothing", [None, []])
def test_no_steps_and_no_images_are_an_example(one_of_each, nothing):
    example = from_row(to_row(one_of_each[0]) | {"trajectory": nothing, "images": nothing})
    assert (example.trajectory, example.images) == ((), ())


# Files


def test_a_split_is_loaded_by_difficulty_with_images_still_encoded(folder):
    train = load_split(folder, "train")
    assert list(train) == list(DIFFICULTIES)
    for rows in train.values():
        assert len(rows) > 0 and set(rows["split"]) == {"train"}
        assert isinstance(rows[0]["images"][0]["bytes"], bytes)
    found = {d: len(rows) for d, rows in load_split(folder, "test").items()}
    assert found["hard"] == 0 and min(found["simple"], found["medium"]) > 0


PARQUET_FILES = [difficulty_file(difficulty) for difficulty in DIFFICULTIES]


@pytest.mark.parametrize(
    "missing", [["cota_simple.parquet"], ["summary.json"], [*PARQUET_FILES, "summary.json"]]
)
def test_missing_files_are_named(folder, missing):
    for name in missing:
        (folder / name).unlink()
    message = f"^data folder {folder} is incomplete: it lacks {', '.join(missing)}; run data-prep "
    with pytest.raises(DataError, match=message):
        data_files(folder)


def without(*names):
    return lambda path: pq.write_table(pq.read_table(path).drop_columns(list(names)), path)


def renumber_images(path):
    table = pq.read_table(path)
    column = table.column_names.index("images")
    pq.write_table(table.set_column(column, "images", pa.array([1] * len(table))), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read as parquet: "),
        (lambda path: path.write_bytes(b"id,task\n1,2\n" * 9), "cannot be read as parquet: "),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read as parquet: "),
        (renumber_images, "cannot be read as parquet: "),
        (without("split"), "lacks the columns split$"),
        (without("task", "answer"), "lacks the columns task, answer$"),
    ],
)
def test_a_broken_file_is_named(folder, damage, message):
    path = folder / "cota_hard.parquet"
    damage(path)
    with pytest.raises(DataError, match=f"^{path} {message}"):
        load_split(folder, "train")


def test_an_unknown_split_or_folder_is_refused(folder):
    message = "^split must be one of train, validation, test, got 'eval'$"
    with pytest.raises(DataError, match=message):
        load_split(folder, "eval")
    message = f"^data folder {folder / 'gone'} does not exist; make it with data-prep$"
    with pytest.raises(DataError, match=message):
        load_split(folder / "gone", "train")


def test_further_columns_and_another_order_do_no_harm(folder):
    before = load_split(folder, "train")["hard"].to_list()
    path = folder / "cota_hard.parquet"
    table = pq.read_table(path)
    table = table.append_column("note", pa.array(["x"] * len(table)))
    pq.write_table(table.select(table.column_names[::-1]), path)
    assert load_split(folder, "train")["hard"].to_list() == before


def test_any_reader_of_datasets_gets_images(folder, tmp_path, one_of_each):
    files = {name: str(folder / difficulty_file(name)) for name in DIFFICULTIES}
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    expected = {example.id: example for example in one_of_each}
    seen = zoomed = 0
    for rows in loaded.values():
        assert rows.features["images"] == FEATURES["images"]
        for row in rows:
            example = expected[row["id"]]
            assert all(isinstance(image, Image.Image) for image in row["images"])
            assert [i.tobytes() for i in row["images"]] == [i.tobytes() for i in example.images]
            for step, known in zip(row["trajectory"], example.trajectory, strict=True):
                assert (step["image"] is None) == (known.image is None)
                if known.image is not None:
                    assert step["image"].tobytes() == known.image.tobytes()
                    zoomed += 1
                assert json.loads(step["arguments"]) == known.arguments
            seen += 1
    assert seen == len(expected) and zoomed > 0


def test_an_empty_difficulty_is_readable(folder, tmp_path, one_of_each):
    difficulties, path = list(load_split(folder, "train")), folder / "cota_hard.parquet"
    assert difficulties == list(DIFFICULTIES)
    kept = [row for row in pq.read_table(path).to_pylist() if row["split"] == "train"]
    write_rows(kept, path)
    assert len(load_split(folder, "test")["hard"]) == 0 < len(load_split(folder, "train")["hard"])
    write_rows([], path)  # then the data have no such difficulty
    assert list(load_split(folder, "train")) == difficulties[:-1]
    assert pq.read_schema(folder / "cota_hard.parquet").names == list(FEATURES)
    # `load_dataset` knows no split without rows; beside the others the file is no stumbling block.
    files = [str(path) for path in data_files(folder)]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert len(loaded["train"]) == len(one_of_each) - len(one_of_each[2::3])


def group_sizes(path):
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


@pytest.mark.parametrize(
    ("rows_in_group", "bytes_in_rows", "batches", "groups"),
    [
        (4, 99, [3, 0, 3, 1, 2, 1, 2], [6, 4, 2]),  # a group ends at the batch that fills it
        (99, 1, [1, 2, 2, 1], [3, 2, 1]),  # or at the one that exceeds the bytes of a row
        (2, 99, [1] * 5, [2, 2, 1]),
        (2, 99, [0], []),
    ],
)
def test_row_groups_are_bounded_and_never_empty(
    one_of_each, tmp_path, monkeypatch, rows_in_group, bytes_in_rows, batches, groups
):
    rows = [to_row(example) for example in one_of_each[:4]]
    first = pa.RecordBatch.from_pylist(rows[:1], schema=SCHEMA)
    monkeypatch.setattr(store, "ROWS_IN_GROUP", rows_in_group)
    monkeypatch.setattr(store, "BYTES_IN_GROUP", bytes_in_rows * first.nbytes + 1)
    with GroupedWriter(tmp_path / "some.parquet") as writer:
        for size in batches:
            writer.write(pa.RecordBatch.from_pylist(rows[:size], schema=SCHEMA))
    assert group_sizes(tmp_path / "some.parquet") == groups
    assert pq.read_schema(tmp_path / "some.parquet").names == list(FEATURES)


def test_the_same_rows_are_the_same_bytes_in_order(one_of_each, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_IN_BATCH", 4)
    rows = [to_row(example) for example in one_of_each]
    for name in ("a", "b"):
        write_rows(iter(rows), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pq.read_table(tmp_path / "a")["id"].to_pylist() == [row["id"] for row in rows]
