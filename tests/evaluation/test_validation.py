"""Strata of one pass over the validation subset, compared with a computation by hand."""

import math
import re
from dataclasses import replace
from statistics import mean

import pytest
import torch
from PIL import Image

from pixelis.data.chat import example_messages
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import IGNORE_INDEX, Encoder
from pixelis.data.store import to_row
from pixelis.errors import CheckpointError, DataError
from pixelis.evaluation.validation import (
    Batches,
    Validation,
    answer_losses,
    build_answer_losses,
    compute_losses,
    needed_logits,
    tally_examples,
)
from pixelis.models import load

NAMES = ("simple", "medium", "hard")


@pytest.fixture(scope="module")
def rows(examples):
    """Four examples of each difficulty, of several lengths."""
    kept = [to_row(example) for example in examples]
    return {"simple": kept[0:4], "medium": kept[3:7], "hard": kept[6:10]}


@pytest.fixture(scope="module")
def dataset(rows, encoder):
    return CurriculumDataset(rows, encoder)


def build(dataset, names=NAMES, *, samples=8, batch_size=3, seed=0, **words):
    numbers = {"samples_per_difficulty": samples, "batch_size": batch_size, "seed": seed}
    return Validation(dataset, names, **numbers, **words)


@pytest.fixture(scope="module")
def by_hand(dataset, lively):
    """For each example alone: (log-probability, right, in the last turn) of every target."""
    tokens = {}
    for name, size in dataset.sizes.items():
        for index in range(size):
            item = dataset[name, index]
            batch = dataset.collate([item])
            del batch["labels"]
            with torch.no_grad():
                logs = lively(**batch).logits[0].log_softmax(-1)
            # The last supervised turn, found from its end: no use of `answer_start`.
            supervised = [t for t, label in enumerate(item.labels) if label != IGNORE_INDEX]
            first = supervised[-1]
            while first - 1 in supervised:
                first -= 1
            tokens[name, index] = [
                (
                    logs[t - 1, item.input_ids[t]].item(),
                    logs[t - 1].argmax().item() == item.input_ids[t],
                    t >= first,
                )
                for t in supervised
            ]
    return tokens


def test_strata_are_what_a_computation_by_hand_gives(dataset, lively, by_hand):
    validation = build(dataset)
    strata = validation(lively)
    assert list(strata) == list(NAMES)
    for name, stratum in strata.items():
        examples = [tokens for key, tokens in by_hand.items() if key[0] == name]
        tokens = [token for example in examples for token in example]
        assert (stratum.num_examples, stratum.num_tokens) == (4, len(tokens))
        assert stratum.loss == pytest.approx(-sum(log for log, _, _ in tokens) / len(tokens), 1e-5)
        assert stratum.token_accuracy == sum(right for _, right, _ in tokens) / len(tokens)
        assert stratum.answer_accuracy == 0.0
        assert stratum.likelihood == math.exp(-stratum.loss)
        of_each = {
            "token_accuracy": lambda example: mean(right for _, right, _ in example),
            "answer_accuracy": lambda example: float(
                all(right for _, right, last in example if last)
            ),
            "likelihood": lambda example: math.exp(mean(log for log, _, _ in example)),
            "answer_likelihood": lambda example: math.exp(
                mean(x for x, _, last in example if last)
            ),
        }
        keys = [key for key in validation.batches.keys if key[0] == name]
        for metric, performance in of_each.items():
            expected = [performance(by_hand[key]) for key in keys]
            assert stratum.performances(metric) == pytest.approx(expected, rel=1e-4), metric
        assert stratum.answer_likelihood == mean(stratum.performances("answer_likelihood"))
    assert len({stratum.loss for stratum in strata.values()}) == 3


class Oracle(torch.nn.Module):
    """Predicts every next token, but for given ones."""

    def __init__(self, dataset, misses):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.vocabulary = len(dataset.encoder.tokenizer)
        self.missed = [
            torch.tensor(dataset[key].input_ids[: position + 1]) for key, position in misses
        ]

    def forward(self, input_ids, logits_to_keep, **_):
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        logits[:, :-1].scatter_(2, input_ids[:, 1:, None], 5.0)
        for row, ids in enumerate(input_ids):
            for prefix in self.missed:
                if torch.equal(ids[: len(prefix)], prefix):
                    logits[row, len(prefix) - 2] = -logits[row, len(prefix) - 2]
        return type("Outputs", (), {"logits": logits[:, logits_to_keep]})


def test_an_answer_is_right_when_every_token_of_the_last_turn_is(dataset):
    supervised = {
        key: [t for t, label in enumerate(dataset[key].labels) if label != IGNORE_INDEX]
        for key in [("simple", 0), ("medium", 1), ("hard", 2)]
    }
    start = dataset["medium", 1].answer_start
    earlier = max(t for t in supervised["medium", 1] if t < start)
    misses = [
        (("simple", 0), supervised["simple", 0][-1]),  # the end of the last turn
        (("medium", 1), earlier),  # the end of the turn before
        (("hard", 2), dataset["hard", 2].answer_start),  # the last turn's first token
    ]
    strata = build(dataset)(Oracle(dataset, misses))
    assert {name: s.answer_accuracy for name, s in strata.items()} == {
        "simple": 0.75,
        "medium": 1.0,
        "hard": 0.75,
    }
    for stratum in strata.values():
        assert stratum.token_accuracy == 1 - 1 / stratum.num_tokens


def test_the_batch_size_changes_nothing(dataset, lively):
    alone = build(dataset, batch_size=1)(lively)
    for batch_size in (5, 100):
        strata = build(dataset, batch_size=batch_size)(lively)
        for name, stratum in strata.items():
            assert stratum.loss == pytest.approx(alone[name].loss, abs=1e-5)
            assert replace(stratum, loss=0.0) == replace(alone[name], loss=0.0)
            each = stratum.performances("likelihood")  # also in the same order
            assert each == pytest.approx(alone[name].performances("likelihood"), abs=1e-5)


def test_the_subset_is_fixed_stratified_and_follows_the_seed(dataset):
    chosen = [sorted(build(dataset, samples=2, seed=seed).keys) for seed in range(10)]
    for keys in chosen:
        assert [name for name, _ in keys] == ["hard"] * 2 + ["medium"] * 2 + ["simple"] * 2
        assert len(set(keys)) == 6
    assert chosen[3] == sorted(build(dataset, samples=2, seed=3).keys)
    assert len({tuple(keys) for keys in chosen}) > 1
    # Another difficulty more or less does not change what the others are measured on.
    alone = build(dataset, ("medium",), samples=2, seed=3).keys
    assert alone == [key for key in build(dataset, samples=2, seed=3).keys if key[0] == "medium"]


def test_an_excluded_example_is_replaced_and_the_others_stay(rows, encoder):
    dataset = CurriculumDataset(rows, encoder)
    before = set(build(dataset, samples=2).keys)
    gone = sorted(before)[0]
    dataset.excluded = frozenset({gone})
    after = set(build(dataset, samples=2).keys)
    assert before - after == {gone} and len(after) == len(before)


class Silent(CurriculumDataset):
    """Whose hard examples have nothing to learn from, or some of them."""

    silent = range(4)

    def __getitem__(self, key):
        item = super().__getitem__(key)
        if key[0] == "hard" and key[1] in self.silent:
            return replace(item, labels=[IGNORE_INDEX] * len(item))
        return item


def test_examples_without_supervised_tokens(rows, encoder, lively, by_hand):
    dataset = Silent(rows, encoder)
    message = r"^the validation examples of hard have no supervised token in the 4 that its"
    with pytest.raises(DataError, match=message):
        build(dataset)
    assert list(build(dataset, needs_all=False)(lively)) == ["simple", "medium"]
    assert list(build(dataset, ("simple", "medium"))(lively)) == ["simple", "medium"]
    dataset.silent = (1,)
    stratum = build(dataset)(lively)["hard"]
    assert stratum.num_tokens == sum(len(by_hand["hard", i]) for i in (0, 2, 3))
    assert math.isfinite(stratum.loss) and 0 < stratum.answer_likelihood < 1
    assert (stratum.num_examples, len(stratum.performances("token_accuracy"))) == (4, 3)


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_left_as_it_was_and_dropout_is_off(dataset, adapted, training):
    few = CurriculumDataset({"hard": dataset.rows["hard"][:2]}, dataset.encoder)
    validation = build(few, ("hard",))
    adapted.eval()
    batches = Batches(few, validation.batches.keys, 2)
    expected = validation(adapted), compute_losses(adapted, batches)
    adapted.train(training)
    try:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        assert (validation(adapted), compute_losses(adapted, batches)) == expected
        assert adapted.training is training
        assert torch.equal(torch.get_rng_state(), before)
        assert all(parameter.grad is None for parameter in adapted.parameters())
    finally:
        adapted.eval()


def test_losses_of_every_example_by_hand(dataset, lively, by_hand):
    for batch_size in (1, 5):
        batches = Batches(dataset, by_hand, batch_size)
        losses = compute_losses(lively, batches)
        assert {(name, index) for name in losses for index in losses[name]} == set(by_hand)
        for (name, index), tokens in by_hand.items():
            expected = -sum(log for log, _, _ in tokens) / len(tokens)
            assert losses[name][index] == pytest.approx(expected, abs=1e-5)
    losses = compute_losses(lively, Batches(dataset, [("hard", 2), ("simple", 1)], 2))
    assert {name: list(values) for name, values in losses.items()} == {"simple": [1], "hard": [2]}


def test_tallies_of_examples_in_memory_are_those_of_a_validation(dataset, lively, examples):
    """Teacher-forced measures of an evaluation are the strata of a training."""
    stratum = build(dataset, ("simple",))(lively)["simple"]
    tallies = tally_examples(lively, dataset.encoder, examples[0:4], batch_size=2)
    tokens = sum(tally.tokens for tally in tallies)
    assert tokens == stratum.num_tokens
    assert sum(tally.right for tally in tallies) / tokens == stratum.token_accuracy
    assert sum(tally.answered for tally in tallies) / 4 == stratum.answer_accuracy
    assert torch.is_grad_enabled()


class CountingDataset(CurriculumDataset):
    """Counts how often it collates."""

    collated = 0

    def collate(self, batch):
        self.collated += 1
        return super().collate(batch)


def assert_equal(one, two):
    assert (one.keys, one.answer_starts) == (two.keys, two.answer_starts)
    for name, tensor in {**one.inputs, "labels": one.labels, "needed": one.needed}.items():
        other = {**two.inputs, "labels": two.labels, "needed": two.needed}[name]
        assert torch.equal(tensor, other), name


def test_batches_are_kept_up_to_a_bound_and_stay_the_same(rows, encoder):
    dataset = CountingDataset(rows, encoder)
    batches = Batches(dataset, dataset.all_keys(), 5)
    first = [batches[i] for i in range(len(batches))]
    assert [len(batch.keys) for batch in first] == [5, 5, 2]
    lengths = [len(dataset[key]) for batch in first for key in batch.keys]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    assert all(batches[i] is batch for i, batch in enumerate(first)) and dataset.collated == 3
    sizes = [batch.num_bytes for batch in first]
    pixels = sum(batch.inputs["pixel_values"].nbytes for batch in first)
    assert 0 < pixels < batches.kept_bytes == sum(sizes)
    # The first fits, and then at most one more.
    for bound, fewest, most in ((sizes[0] + max(sizes[1:]) - 1, 4, 5), (0, 6, 6)):
        some = Batches(dataset, batches.keys, 5, max_kept_bytes=bound)
        dataset.collated = 0
        for i in (0, 1, 2) * 2:
            assert_equal(first[i], some[i])
        assert fewest <= dataset.collated <= most and some.kept_bytes <= bound


class Wrapped(torch.nn.Module):
    """As DistributedDataParallel wraps a model."""

    def __init__(self, model):
        super().__init__()
        self.module = model

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("name", ["nano", "nano-bf16", "lively", "adapted"])
def test_the_needed_logits_are_those_of_a_full_head_to_the_bit(request, dataset, name):
    model = (
        load.load_model("pixelis-nano", torch_dtype="bfloat16")
        if name == "nano-bf16"
        else request.getfixturevalue(name)
    ).eval()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    batches, shapes = Batches(dataset, dataset.all_keys(), 5), []
    hook = base.lm_head.register_forward_hook(lambda _, __, out: shapes.append(out.shape[1]))
    with torch.inference_mode():
        for batch in (batches[i] for i in range(len(batches))):
            expected = set()
            for key in batch.keys:
                labels = dataset[key].labels
                expected |= {t - 1 for t, label in enumerate(labels) if label != IGNORE_INDEX}
            assert batch.needed.tolist() == sorted(expected)
            full = model(**batch.inputs).logits
            for same in (model, Wrapped(model)):
                assert torch.equal(needed_logits(same, batch), full[:, batch.needed])
            length, *kept = shapes
            assert kept == [len(expected)] * 2 and len(expected) < length
            shapes.clear()
    hook.remove()


def answer_loss_by_hand(model, encoder, example):
    """The loss of one example's final turn on its own, token by token."""
    item = encoder.encode(example_messages(example))
    inputs = CurriculumDataset({}, encoder).collate([item])
    labels = inputs.pop("labels")[0]
    with torch.inference_mode():
        chances = model(**inputs).logits[0].float().log_softmax(-1)
    taken = [
        -chances[place - 1, labels[place]].item()
        for place in range(item.answer_start, len(item))
        if labels[place] != IGNORE_INDEX
    ]
    return sum(taken) / len(taken)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_answer_losses_are_those_of_the_final_turn(nano, encoder, examples, batch_size):
    losses = answer_losses(nano, encoder, examples[:6], batch_size=batch_size)
    expected = [answer_loss_by_hand(nano, encoder, example) for example in examples[:6]]
    assert losses == pytest.approx(expected, abs=1e-4)
    right = next(example for example in examples if example.task == "attribute_recognition")
    low, high = answer_losses(nano, encoder, [right, replace(right, answer="zebra crossing")])
    assert low < high


def test_the_answer_loss_of_an_example_that_cannot_be_encoded_is_infinite(nano, encoder, examples):
    length = len(encoder.encode(example_messages(examples[0])))
    short = Encoder(encoder.processor, max_length=length)
    reserved = replace(examples[0], question="\ue000")
    long = replace(examples[0], question="red " * 2000)
    thin = replace(examples[0], images=(Image.new("RGB", (1000, 2)),))
    losses = answer_losses(nano, short, [reserved, examples[0], long, thin])
    assert [math.isinf(loss) for loss in losses] == [True, False, True, True]
    assert answer_losses(nano, encoder, []) == []


def test_a_model_for_answer_losses_is_loaded_once(nano, encoder, examples, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        "pixelis.evaluation.validation.load_model",
        lambda *a, **k: calls.append(a) or load.load_model(*a, **k),
    )
    losses = build_answer_losses("pixelis-nano")
    assert calls == []
    values = losses(examples[:3]) + losses(examples[3:5])
    assert calls == [("pixelis-nano",)]
    assert values == pytest.approx(answer_losses(nano, encoder, examples[:5]), abs=1e-2)
    missing = build_answer_losses(str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match=f"^no model folder {re.escape(str(tmp_path))}/none"):
        missing(examples[:1])
