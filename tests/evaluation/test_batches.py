"""Batches that are kept, and logits only where they are needed: no bit may change."""

from dataclasses import replace

import pytest
import torch

from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import IGNORE_INDEX
from pixelis.data.store import to_row
from pixelis.evaluation.batches import Batches, by_length, needed_logits
from pixelis.models.load import load_model


def keys_of(dataset):
    return [(name, index) for name, size in dataset.sizes.items() for index in range(size)]


class CountingDataset(CurriculumDataset):
    """Counts how often it collates."""

    collated = 0

    def collate(self, batch):
        self.collated += 1
        return super().collate(batch)


@pytest.fixture
def dataset(examples, encoder):
    rows = [to_row(example) for example in examples]
    return CountingDataset({"simple": rows[0:3], "medium": rows[3:6], "hard": rows[6:10]}, encoder)


@pytest.fixture
def batches(dataset):
    return Batches(dataset, by_length(dataset, keys_of(dataset)), 4)


def assert_equal(one, two):
    assert (one.keys, one.answer_starts) == (two.keys, two.answer_starts)
    assert one.inputs.keys() == two.inputs.keys()
    for name, tensor in {**one.inputs, "labels": one.labels, "needed": one.needed}.items():
        other = {**two.inputs, "labels": two.labels, "needed": two.needed}[name]
        assert torch.equal(tensor, other), name


def test_every_key_once_the_shortest_first(dataset, batches):
    assert [len(batch.keys) for batch in batches] == [4, 4, 2] and len(batches) == 3
    keys = [key for batch in batches for key in batch.keys]
    assert sorted(keys) == sorted((n, i) for n, size in dataset.sizes.items() for i in range(size))
    lengths = [len(dataset[key]) for key in keys]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_the_needed_positions_are_those_before_a_supervised_token(dataset, batches):
    for batch in batches:
        expected = set()
        for key in batch.keys:
            labels = dataset[key].labels
            expected |= {t - 1 for t, label in enumerate(labels) if label != IGNORE_INDEX}
        assert batch.needed.tolist() == sorted(expected)
        assert len(expected) < batch.labels.shape[1] - 1


def test_batches_are_kept_up_to_a_bound_and_stay_the_same(dataset, batches):
    first = list(batches)
    assert all(one is two for one, two in zip(first, batches, strict=True))
    assert dataset.collated == 3
    sizes = [batch.num_bytes for batch in first]
    assert batches.kept_bytes == sum(sizes)
    pixels = sum(batch.inputs["pixel_values"].nbytes for batch in first)
    assert 0 < pixels < batches.kept_bytes
    # The first fits, and then at most one more.
    for bound, fewest, most in ((sizes[0] + max(sizes[1:]) - 1, 4, 5), (0, 6, 6)):
        some = Batches(dataset, batches.keys, 4, max_kept_bytes=bound)
        dataset.collated = 0
        for _ in range(2):
            for one, two in zip(first, some, strict=True):
                assert_equal(one, two)
        assert fewest <= dataset.collated <= most
        assert (some.kept_bytes > 0) == (bound > 0) and some.kept_bytes <= bound


@pytest.fixture(params=["nano", "nano-bf16", "lively", "adapted"])
def model(request):
    if request.param == "nano-bf16":
        return load_model("pixelis-nano", torch_dtype="bfloat16").eval()
    return request.getfixturevalue(request.param).eval()


class Wrapped(torch.nn.Module):
    """A wrapper whose forward does not name its parameters, as a distributed one's."""

    def __init__(self, model):
        super().__init__()
        self.module = model

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


class Dense(torch.nn.Module):
    """A model that has no `logits_to_keep`; its head always computes every position."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, input_ids, attention_mask, mm_token_type_ids, pixel_values, image_grid_thw):
        return self.inner(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=mm_token_type_ids,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
        )


def head_rows(model):
    """The shapes of the head's outputs, noted from now on."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    shapes = []
    hook = base.lm_head.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    return shapes, hook


def test_the_needed_logits_are_those_of_a_full_head_to_the_bit(model, batches):
    shapes, hook = head_rows(model)
    try:
        with torch.inference_mode():
            for batch in batches:
                full = model(**batch.inputs).logits
                assert shapes.pop()[1] == batch.labels.shape[1]
                for same in (model, Wrapped(model)):
                    kept = needed_logits(same, batch)
                    assert shapes.pop()[1] == len(batch.needed) < batch.labels.shape[1]
                    assert torch.equal(kept, full[:, batch.needed])
                assert torch.equal(needed_logits(Dense(model), batch), full[:, batch.needed])
                assert shapes.pop()[1] == batch.labels.shape[1]
    finally:
        hook.remove()


def test_a_batch_without_a_supervised_token_has_no_logits(dataset, adapted, batches):
    batch = batches[0]
    silent = torch.full_like(batch.labels, IGNORE_INDEX)
    empty = replace(batch, labels=silent, needed=batch.needed[:0])
    with torch.inference_mode():
        for same in (adapted, Dense(adapted)):
            assert needed_logits(same, empty).shape[:2] == (len(batch.keys), 0)
