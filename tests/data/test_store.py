import dataclasses
import json
import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixelis.data import store
from pixelis.data.example import DIFFICULTIES, Example, Step
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


def load_all(folder, cache_dir, names=DIFFICULTIES):
    files = {name: str(folder / difficulty_file(name)) for name in names}
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache_dir))


# Example -> row -> example


def test_an_example_survives_being_a_row(one_of_each):
    assert any(step.image for example in one_of_each for step in example.trajectory)
    for example in one_of_each:
        row = to_row(example)
        assert list(row) == list(FEATURES)
        assert_same(from_row(row), example)
        assert to_row(from_row(row)) == row


def test_an_example_survives_the_file(folder, one_of_each):
    loaded = {}
    for split in ("train", "validation", "test"):
        for rows in load_split(folder, split).values():
            loaded |= {row["id"]: from_row(row) for row in rows}
    assert len(loaded) == len(one_of_each)
    for example in one_of_each:
        found = loaded[example.id]
        assert_same(
            dataclasses.replace(found, difficulty="", split=""),
            example,
        )


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


def broken(row, **changes):
    return {**row, **changes}


def with_step(row, **changes):
    (first, *rest) = row["trajectory"]
    return {**row, "trajectory": [{**first, **changes}, *rest]}


@pytest.mark.parametrize(
    "stored",
    [
        {"bytes": b"", "path": None},
        {"bytes": b"no image", "path": None},
        {"bytes": None, "path": "/somewhere/else.png"},
        None,
    ],
)
def test_an_image_that_does_not_open_names_the_example(one_of_each, stored):
    row = to_row(one_of_each[0])
    message = f"^example {row['id']}: an image does not open \\(.+\\)$"
    with pytest.raises(DataError, match=message):
        from_row(broken(row, images=[stored]))


def test_a_truncated_image_does_not_open(one_of_each):
    row = to_row(one_of_each[0])
    half = row["images"][0]["bytes"][: len(row["images"][0]["bytes"]) // 2]
    with pytest.raises(DataError, match=f"^example {row['id']}: an image does not open"):
        from_row(broken(row, images=[{"bytes": half, "path": None}]))
    with pytest.raises(DataError, match=f"^example {row['id']}: an image does not open"):
        from_row(with_step(row, image={"bytes": half, "path": None}))


def test_an_image_too_large_to_be_honest_does_not_open(one_of_each, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    row = to_row(one_of_each[0])
    with pytest.raises(DataError, match=f"^example {row['id']}: an image does not open"):
        from_row(row)


@pytest.mark.parametrize("text", ["{", "", None, '{"x": ' + "9" * 5000 + "}", "[" * 10**5])
@pytest.mark.parametrize("name", ["arguments", "result"])
def test_broken_json_of_a_step(one_of_each, name, text):
    row = to_row(one_of_each[0])
    message = f"^example {row['id']}: a step's {name} cannot be read \\(.+\\)$"
    with pytest.raises(DataError, match=message):
        from_row(with_step(row, **{name: text}))


@pytest.mark.parametrize("text", ["[1, 2]", "null", '"text"', "3"])
def test_json_that_is_no_object(one_of_each, text):
    row = to_row(one_of_each[0])
    message = f"example {row['id']}: a step's arguments must be a JSON object, got {text}"
    with pytest.raises(DataError) as error:
        from_row(with_step(row, arguments=text))
    assert str(error.value) == message


def test_a_missing_text(one_of_each):
    row = to_row(one_of_each[0])
    with pytest.raises(DataError, match=f"^example {row['id']}: question must be a text, got None"):
        from_row(row | {"question": None})


def test_broken_provenance(one_of_each):
    row = to_row(one_of_each[0])
    message = f"^example {row['id']}: the provenance cannot be read"
    with pytest.raises(DataError, match=message):
        from_row(broken(row, provenance="{"))


def test_no_steps_and_no_images_are_an_example(one_of_each):
    row = to_row(one_of_each[0])
    for nothing in (None, []):
        example = from_row(broken(row, trajectory=nothing, images=nothing))
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


def test_an_unknown_split_lists_what_exists(folder):
    message = "^split must be one of train, validation, test, got 'eval'$"
    with pytest.raises(DataError, match=message):
        load_split(folder, "eval")


def test_a_missing_folder(tmp_path):
    gone = tmp_path / "gone"
    message = f"^data folder {gone} does not exist; make it with data-prep$"
    with pytest.raises(DataError, match=message):
        load_split(gone, "train")


@pytest.mark.parametrize("name", [*map(difficulty_file, DIFFICULTIES), "summary.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    message = f"^data folder {folder} is incomplete: it lacks {name}; run data-prep again, or "
    with pytest.raises(DataError, match=message):
        data_files(folder)


def test_all_missing_files_are_named(tmp_path):
    names = "cota_simple.parquet, cota_medium.parquet, cota_hard.parquet, summary.json"
    with pytest.raises(DataError, match=f"it lacks {names};"):
        data_files(tmp_path)


def test_the_three_files_in_order(folder):
    expected = ["cota_simple.parquet", "cota_medium.parquet", "cota_hard.parquet"]
    assert [path.name for path in data_files(folder)] == expected


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_broken_file_is_named(folder, damage):
    path = folder / "cota_medium.parquet"
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"id,task\n1,2\n" * 9, "cut": whole[:-100]}[damage])
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: "):
        load_split(folder, "train")


@pytest.mark.parametrize("lacking", [["split"], ["images"], ["task", "answer"]])
def test_lacking_columns_are_named(folder, lacking):
    path = folder / "cota_hard.parquet"
    pq.write_table(pq.read_table(path).drop_columns(lacking), path)
    with pytest.raises(DataError, match=f"^{path} lacks the columns {', '.join(lacking)}$"):
        load_split(folder, "train")


def test_a_column_of_another_type(folder):
    path = folder / "cota_hard.parquet"
    table = pq.read_table(path)
    column = table.column_names.index("images")
    pq.write_table(table.set_column(column, "images", pa.array([1] * len(table))), path)
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: "):
        load_split(folder, "train")


def test_further_columns_and_another_order_do_no_harm(folder):
    before = load_split(folder, "train")["hard"].to_list()
    path = folder / "cota_hard.parquet"
    table = pq.read_table(path)
    table = table.append_column("note", pa.array(["x"] * len(table)))
    pq.write_table(table.select(table.column_names[::-1]), path)
    assert load_split(folder, "train")["hard"].to_list() == before


def test_any_reader_of_datasets_gets_images(folder, tmp_path, one_of_each):
    loaded = load_all(folder, tmp_path / "cache")
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
    write_rows([], folder / "cota_hard.parquet")
    assert {d: len(rows) for d, rows in load_split(folder, "train").items()}["hard"] == 0
    assert pq.read_schema(folder / "cota_hard.parquet").names == list(FEATURES)
    # `load_dataset` knows no split without rows; beside the others the file is no stumbling block.
    files = [str(path) for path in data_files(folder)]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert len(loaded["train"]) == len(one_of_each) - len(one_of_each[2::3])


@pytest.mark.parametrize("count", [4, 5, 6])
def test_rows_come_in_groups_none_of_them_empty(one_of_each, tmp_path, monkeypatch, count):
    monkeypatch.setattr(store, "ROWS_IN_GROUP", 2)
    monkeypatch.setattr(store, "ROWS_IN_BATCH", 1)
    rows = [to_row(example) for example in one_of_each[:count]]
    write_rows(iter(rows), tmp_path / "some.parquet")
    metadata = pq.ParquetFile(tmp_path / "some.parquet").metadata
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sizes == {4: [2, 2], 5: [2, 2, 1], 6: [2, 2, 2]}[count]
    ids = pq.read_table(tmp_path / "some.parquet")["id"].to_pylist()
    assert ids == [row["id"] for row in rows]


def sizes_of_groups(path):
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]


def batches(one_of_each, *sizes):
    rows = [to_row(example) for example in one_of_each[:4]] * 2
    return [pa.RecordBatch.from_pylist(rows[:size], schema=SCHEMA) for size in sizes]


def test_a_group_ends_at_the_batch_that_fills_it(one_of_each, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_IN_GROUP", 4)
    with GroupedWriter(tmp_path / "some.parquet") as writer:
        for batch in batches(one_of_each, 3, 0, 3, 1, 2, 1, 2):
            writer.write(batch)
    assert sizes_of_groups(tmp_path / "some.parquet") == [6, 4, 2]


def test_a_group_of_large_images_ends_sooner(one_of_each, tmp_path, monkeypatch):
    (one, two) = batches(one_of_each, 1, 2)
    monkeypatch.setattr(store, "BYTES_IN_GROUP", one.nbytes + 1)
    with GroupedWriter(tmp_path / "some.parquet") as writer:
        for batch in (one, two, two, one):
            writer.write(batch)
    assert sizes_of_groups(tmp_path / "some.parquet") == [3, 2, 1]


def test_a_writer_without_rows_leaves_a_readable_file(one_of_each, tmp_path):
    with GroupedWriter(tmp_path / "some.parquet") as writer:
        writer.write(batches(one_of_each, 0)[0])
    assert sizes_of_groups(tmp_path / "some.parquet") == []
    assert pq.read_schema(tmp_path / "some.parquet").names == list(FEATURES)


def test_the_same_rows_are_the_same_bytes(one_of_each, tmp_path):
    rows = [to_row(example) for example in one_of_each]
    for name in ("a", "b"):
        write_rows(rows, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_can_be_moved(folder, tmp_path):
    before = load_split(folder, "train")["simple"].to_list()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in [*data_files(folder), folder / "summary.json"]:
        shutil.move(path, moved)
    assert load_split(moved, "train")["simple"].to_list() == before
