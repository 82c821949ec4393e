import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pixelis.curriculum.difficulty import COMPONENTS, combine
from pixelis.data.example import SPLITS
from pixelis.data.store import SCHEMA
from pixelis.data_prep.difficulty import composite
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.importing import Record
from pixelis.data_prep.rows import RowBuilder, split_of
from pixelis.data_prep.sources import open_source
from pixelis.data_prep.streams import Generator, Importer, PlannedExample
from pixelis.errors import CheckpointError, DataError

WEIGHTS = dict(zip(COMPONENTS, (0.3, 0.25, 0.2, 0.15, 0.1), strict=True))
BUILDER = RowBuilder((0.12, 0.12), "composite", WEIGHTS)
PLANS = [
    PlannedExample(0, "object_counting", "positive"),
    PlannedExample(1, "text_extraction", "self_correction"),
    PlannedExample(2, "geometric_comparison", "trap_logical"),
]


@pytest.fixture(scope="module")
def made():
    return Generator(3, open_source("scenes"), BUILDER)(PLANS)


def rows(made):
    return made.batch.to_pylist()


# Splits: by the image alone


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


def test_a_row_s_split_is_that_of_its_image(made):
    for row in rows(made):
        digest = json.loads(row["provenance"])["image_digest"]
        assert row["split"] == split_of(digest, 0.12, 0.12)


# Chunks of planned examples


def test_a_chunk_holds_the_planned_examples_in_order(made):
    assert made.batch.schema == SCHEMA and made.rejections == []
    for plan, row, info in zip(PLANS, rows(made), made.infos, strict=True):
        assert (row["task"], row["sample_type"]) == (plan.task, plan.sample_type)
        assert (info.task, info.sample_type) == (plan.task, plan.sample_type)
        assert (info.split, info.score) == (row["split"], row["difficulty_score"])
        assert info.key == int(hashlib.sha256(row["id"].encode()).hexdigest()[:16], 16)
        assert info.num_objects == len(json.loads(row["provenance"])["objects"])


def test_the_score_is_the_weighted_sum_of_the_components_that_the_row_tells(made):
    for row, info in zip(rows(made), made.infos, strict=True):
        components = json.loads(row["provenance"])["difficulty_components"]
        assert components == dict(info.components) and set(components) == set(COMPONENTS)
        assert row["difficulty_score"] == pytest.approx(combine(components, WEIGHTS), abs=1e-5)


def test_an_example_depends_on_its_plan_alone_not_on_its_chunk(made):
    generate = Generator(3, open_source("scenes"), BUILDER)
    for plan, row in zip(PLANS, rows(made), strict=True):
        assert rows(generate([plan])) == [row]


def test_another_salt_and_another_seed_give_other_examples(made):
    first = rows(made)[0]["id"]
    assert rows(Generator(3, open_source("scenes"), BUILDER)(PLANS[:1], 1))[0]["id"] != first
    assert rows(Generator(4, open_source("scenes"), BUILDER)(PLANS[:1]))[0]["id"] != first


def test_the_scorer_model_scores_by_the_composite_until_the_model_has(made):
    later = Generator(3, open_source("scenes"), replace(BUILDER, scorer="model"))(PLANS)
    assert later.infos == made.infos


def test_pixels_of_one_example_at_a_time_are_in_memory(monkeypatch):
    example = generate_example(seed=0, index=0, task="object_counting", sample_type="positive")
    taken, scored = [], []
    components = composite.example_components
    monkeypatch.setattr(
        composite,
        "example_components",
        lambda example, weights: scored.append(example.id) or components(example, weights),
    )

    def examples():
        for number in range(3):
            assert len(scored) == number, "the one before is a row already"
            taken.append(number)
            yield replace(example, id=str(number))

    assert BUILDER.build(examples(), []).batch.num_rows == 3 == len(taken)


# Chunks of raw records


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    return tmp_path


def record(line, **changes):
    data = {"question": "What?", "image": f"{line % 3}.png", "answer": "noise"}
    return Record("some.jsonl", line, {**data, **changes})


@pytest.mark.parametrize("error", [DataError("U+E000"), ValueError("aspect ratio must be small")])
def test_what_the_model_s_processor_refuses_is_rejected(folder, error):
    def refuse(example):
        if example.images[0].size == (40, 30):
            raise error
        return 1

    Image.new("RGB", (20, 20)).save(folder / "1.png")
    made = Importer(folder, "cota", BUILDER, 5, refuse)([record(1), record(2)])
    assert made.batch.num_rows == 1
    (found,) = made.rejections
    assert found.line == 2 and found.reason == "unreadable_image" and str(error) in found.detail


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_record(folder):
    def fail(example):
        raise CheckpointError("no such model")

    with pytest.raises(CheckpointError):
        Importer(folder, "cota", BUILDER, 5, fail)([record(1)])
