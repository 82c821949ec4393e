"""Encoded examples by difficulty and index."""

import re

import pytest
import torch

from pixelis.data.chat import example_messages
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoder, collate
from pixelis.data.store import to_row
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.tasks import TASKS
from pixelis.errors import DataError
from pixelis.models.load import load_processor


@pytest.fixture(scope="module")
def processor():
    return load_processor("pixelis-nano")


@pytest.fixture(scope="module")
def encoder(processor):
    return Encoder(processor)


@pytest.fixture(scope="module")
def one_of_each():
    """Every task as a plain example, a correction and a judgement."""
    types = ("positive", "self_correction", "trap_logical")
    kinds = [(task, kind) for task in TASKS for kind in types]
    return [
        generate_example(seed=6, index=index, task=task, sample_type=kind)
        for index, (task, kind) in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def rows(one_of_each):
    kept = [to_row(example) for example in one_of_each]
    return {"simple": kept[:10], "medium": kept[10:14], "hard": kept[14:]}


@pytest.fixture
def dataset(rows, encoder):
    return CurriculumDataset(rows, encoder)


def keys_of(dataset):
    return [(name, index) for name, size in dataset.sizes.items() for index in range(size)]


def test_an_example_comes_back_as_it_was(dataset, one_of_each):
    assert dataset.sizes == {"simple": 10, "medium": 4, "hard": len(one_of_each) - 14}
    assert len(dataset) == len(one_of_each)
    for key, example in zip(keys_of(dataset), one_of_each, strict=True):
        found = dataset.example(key)
        assert (found.id, found.answer) == (example.id, example.answer)
        assert [step.arguments for step in found.trajectory] == [
            step.arguments for step in example.trajectory
        ]


def test_every_reading_gives_what_encoding_gives(dataset, one_of_each, encoder):
    some_observed = False
    for key, example in zip(keys_of(dataset), one_of_each, strict=True):
        expected = encoder.encode(example_messages(example))
        for _ in range(2):  # the second time, the ids are remembered
            item = dataset[key]
            assert (item.input_ids, item.labels) == (expected.input_ids, expected.labels)
            assert item.answer_start == expected.answer_start
            assert [i.tobytes() for i in item.images] == [i.tobytes() for i in expected.images]
        some_observed = some_observed or len(item.images) > len(example.images)
    assert some_observed


def test_batches_are_the_encoder_s(dataset, encoder):
    items = [dataset["simple", 0], dataset["hard", 0]]
    made, expected = dataset.collate(items), collate(items, encoder)
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)


def test_an_example_that_is_too_long_is_named(rows, processor):
    lengths = [len(CurriculumDataset(rows, Encoder(processor))["simple", i]) for i in range(10)]
    dataset = CurriculumDataset(rows, Encoder(processor, max_length=max(lengths) - 1))
    longest = lengths.index(max(lengths))
    expected = (
        f"example {rows['simple'][longest]['id']}: {max(lengths)} tokens, "
        f"more than max_length {max(lengths) - 1}"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        dataset["simple", longest]
    assert len(dataset["simple", lengths.index(min(lengths))]) == min(lengths)


def test_an_image_that_does_not_open_is_named(rows, encoder):
    row = {**rows["simple"][0], "images": [{"bytes": b"no image", "path": None}]}
    dataset = CurriculumDataset({"simple": [row]}, encoder)
    with pytest.raises(DataError, match=f"^example {row['id']}: an image does not open "):
        dataset["simple", 0]
