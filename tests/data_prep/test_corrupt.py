"""Examples that are broken on purpose: which ones, how, and what stays as it was."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixelis.config import CorruptConfig, DataPrepConfig, DifficultyConfig
from pixelis.data.example import DIFFICULTIES
from pixelis.data.images import image_digest
from pixelis.data.store import SCHEMA, data_files, from_row
from pixelis.data_prep.corrupt import choose_sources
from pixelis.data_prep.prepare import prepare_folder
from pixelis.data_prep.summary import format_summary

CONFIG = DataPrepConfig(
    num_samples=90,
    num_workers=1,
    tasks=("attribute_recognition", "text_extraction"),
    validation_fraction=0.2,
    test_fraction=0.2,
    difficulty=DifficultyConfig(correlation_samples=0),
)
SHARES = (("answers", "hard", 1.0), ("answers", "hard", 0.6), ("images", "simple", 1.0))


def corrupt(**rules):
    return CONFIG.replace(corrupt=CorruptConfig(**rules))


def rows_of(folder):
    tables = [pq.read_table(file) for file in data_files(folder)]
    assert all(table.schema.equals(SCHEMA) for table in tables)
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def write_photos(folder):
    """Records about thirty photographs, with two questions about each, of one to three steps."""
    folder.mkdir()
    look = {"thought": "Look.", "operation": "ZOOM_IN", "arguments": {"bbox": [0, 0, 9, 9]}}
    records = []
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        records += [
            {
                "id": f"{number}-{k}",
                "question": f"What is {k}?",
                "image": f"{number}.png",
                "trajectory": [look] * (1 + number % 3),  # equal scores would be one difficulty
                "answer": "7",
            }
            for k in range(2)
        ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Clean data, drawn and imported: name -> the settings and the rows by id."""
    folder = tmp_path_factory.mktemp("clean")
    write_photos(folder / "photos")
    settings = {"drawn": CONFIG, "imported": CONFIG.replace(input=str(folder / "photos"))}
    for name, config in settings.items():
        prepare_folder(config, folder / name)
    return {name: (config, rows_of(folder / name)) for name, config in settings.items()}


@pytest.mark.parametrize("origin", ["drawn", "imported"])
@pytest.mark.parametrize(("kind", "difficulty", "share"), SHARES)
def test_a_share_of_one_difficulty_is_broken_outside_of_the_test_split(
    made, tmp_path, origin, kind, difficulty, share
):
    config, clean = made[origin]
    rules = CorruptConfig(kind=kind, difficulty=difficulty, share=share)
    summary = prepare_folder(config.replace(corrupt=rules), tmp_path / "cota")
    broken = rows_of(tmp_path / "cota")
    assert list(broken) == list(clean)
    changed = {name: row for name, row in broken.items() if row != clean[name]}
    sizes = Counter(r["split"] for r in clean.values() if r["difficulty"] == difficulty)
    assert sizes["train"] > 2 and sizes["validation"] > 1 and sizes["test"] > 0
    expected = {split: round(share * sizes[split]) for split in ("train", "validation")}
    assert Counter(row["split"] for row in changed.values()) == expected
    counts = {f"{split}/{difficulty}/{kind}": number for split, number in expected.items()}
    assert summary["corrupted"] == counts
    for name, number in counts.items():
        line = f"corrupted on purpose: {number} of {sizes[name.split('/')[0]]} ({name})"
        assert line in format_summary(summary)

    free = {"answers": ("conclusion", "answer"), "images": ("images",)}[kind]
    for name, row in changed.items():
        before, after = json.loads(clean[name]["provenance"]), json.loads(row["provenance"])
        assert row["difficulty"] == difficulty and after.pop("corrupted") == kind
        kept = set(SCHEMA.names) - {*free, "provenance"}
        assert {key: row[key] for key in kept} == {key: clean[name][key] for key in kept}
        if kind == "answers":
            assert (row["conclusion"], row["answer"]) == ("unknown", "unknown")
            assert after == before
        else:
            assert after.pop("image_digest") == image_digest(*from_row(row).images)
            digest = before.pop("image_digest")
            assert after == before and digest != image_digest(*from_row(row).images)
    for split in expected:  # images change places, and none is lost
        images = [
            sorted(str(row["images"]) for row in rows.values() if row["split"] == split)
            for rows in (clean, broken)
        ]
        assert images[0] == images[1]


def test_what_is_broken_follows_from_the_seed_and_a_smaller_share_is_part_of_a_larger(tmp_path):
    def broken(name, **changed):
        prepare_folder(corrupt(share=0.5).replace(**changed), tmp_path / name)
        rows = rows_of(tmp_path / name)
        return {key for key, row in rows.items() if row["answer"] == "unknown"}

    first = broken("a")
    files = [path.read_bytes() for path in data_files(tmp_path / "a")]
    assert broken("b", num_workers=2) == first
    assert [path.read_bytes() for path in data_files(tmp_path / "b")] == files
    assert first < broken("c", corrupt=CorruptConfig(share=0.8))


def test_a_share_that_breaks_nothing_is_said(tmp_path):
    summary = prepare_folder(corrupt(share=1e-6), tmp_path / "cota")
    assert summary["corrupted"] == {"train/hard/answers": 0, "validation/hard/answers": 0}
    num = summary["by_split_and_difficulty"]["train/hard"]
    line = f"corrupted on purpose: 0 of {num} (train/hard/answers)"
    assert line in format_summary(summary)


def test_the_rank_correlation_is_measured_on_the_clean_rows(tmp_path):
    def measured(name, share):
        seen = []

        def answer_losses(examples):
            seen.extend(example.answer for example in examples)
            return [float(i) for i in range(len(examples))]

        rules = CONFIG.difficulty.replace(correlation_samples=30)
        config = corrupt(share=share).replace(difficulty=rules)
        summary = prepare_folder(config, tmp_path / name, answer_losses=answer_losses)
        return seen, summary["rank_correlation"]

    assert measured("broken", 1.0) == measured("clean", 0.0)


def facts(images, difficulty="hard"):
    rows = [("train", difficulty, key, image) for key, image in enumerate(images)]
    return pd.DataFrame(rows, columns=["split", "difficulty", "key", "image"])


@pytest.mark.parametrize(
    ("images", "num_broken"),
    [
        ([1, 2, 3, 4], 4),
        ([1, 1, 2, 2, 3], 5),
        ([1, 1, 2, 2], 4),
        ([1, 1, 1, 2], 2),  # only one other image there is
        ([1, 1], 0),
        ([1], 0),
        ([], 0),
    ],
)
def test_an_example_gets_other_images_where_there_are_some(images, num_broken):
    rules = CorruptConfig(kind="images", share=1.0)
    sources = choose_sources(facts(images), rules, seed=0)
    assert len(sources) == num_broken == len(set(sources.values()))
    assert all(images[row] != images[source] for row, source in sources.items())


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_nothing_is_broken_by_default_or_of_a_difficulty_that_is_absent(difficulty):
    other = "simple" if difficulty != "simple" else "hard"
    assert choose_sources(facts([1, 2], difficulty), CONFIG.corrupt, seed=0) == {}
    rules = CorruptConfig(difficulty=other, share=1.0)
    assert choose_sources(facts([1, 2], difficulty), rules, seed=0) == {}
