import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from pixelis.data.encode import IGNORE_INDEX, collate
from recipes.nano import __main__ as building
from recipes.nano.blend import build_lesson
from recipes.nano.train import (
    LONG,
    BlendBatches,
    Lookups,
    Recipe,
    sum_losses,
    train_blend,
    train_lookup,
    train_vision,
)

pytestmark = pytest.mark.integration

TINY = Recipe(vision_steps=2, lookup_steps=2, blend_steps=2, batch_size=3, num_threads=1)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def encode_lessons(encoder, count):
    lookups = Lookups(encoder.tokenizer)
    lessons = [build_lesson(0, index) for index in range(count)]
    encoded = [encoder.encode(lesson.messages) for lesson in lessons]
    held = [lesson.contents for lesson in lessons]
    targets = [lookups.targets(*pair) for pair in zip(encoded, held, strict=True)]

    def batch(chosen):
        part = collate([encoded[i] for i in chosen], encoder)
        lookups.add_targets(part, [targets[i] for i in chosen])
        return part

    return lookups, encoded, batch


def test_the_same_recipe_gives_the_same_weights_to_the_bit(
    fresh_model, processor, encoder, one_thread
):
    runs = []
    for _ in range(2):
        model, reports = fresh_model(), []
        train_vision(model, processor, TINY, lambda *report, to=reports: to.append(report))
        for train in (train_lookup, train_blend):
            train(model, encoder, TINY, lambda *report, to=reports: to.append(report))
        runs.append((reports, model.state_dict()))
    assert runs[0][0] == runs[1][0] and [report[0] for report in runs[0][0]] == [1, 2] * 3
    assert same(runs[0][1], runs[1][1])
    # It has learned from it: every part of the model has moved.
    before = fresh_model().state_dict()
    assert {name for name in before if torch.equal(before[name], runs[0][1][name])} == set()


def test_a_batch_is_a_function_of_seed_and_step(encoder):
    batches = BlendBatches(encoder, TINY)
    assert len(batches) == TINY.blend_steps
    first = batches[1]
    for again in (batches[1], BlendBatches(encoder, TINY)[1]):
        assert len(again) == len(first)
        assert all(same(one, two) for one, two in zip(first, again, strict=True))
    for other in (batches[0], BlendBatches(encoder, replace(TINY, seed=1))[1]):
        assert [part["input_ids"].tolist() for part in other] != [
            part["input_ids"].tolist() for part in first
        ]


def test_a_batch_holds_its_items_once_short_apart_from_long(encoder):
    recipe = Recipe(batch_size=24)
    short, long = BlendBatches(encoder, recipe)[3]
    lengths = {"short": short["attention_mask"].sum(1), "long": long["attention_mask"].sum(1)}
    assert lengths["short"].max() < LONG <= lengths["long"].min()
    lessons = [build_lesson(0, 3 * 24 + slot) for slot in range(24)]
    expected = sorted(len(encoder.encode(lesson.messages)) for lesson in lessons)
    assert torch.cat([lengths["short"], lengths["long"]]).tolist() == expected


def test_the_loss_of_the_parts_is_the_mean_over_all_supervised_tokens(fresh_model, encoder):
    model = fresh_model().eval()
    lookups, encoded, batch = encode_lessons(encoder, 4)
    gradients, losses = [], []
    for parts in ([range(4)], [[0], [1, 2, 3]]):
        model.zero_grad()
        losses.append(sum_losses(model, lookups, [batch(part) for part in parts], 0.0)[0])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)
    # And it is the mean that torch itself takes over them.
    whole = collate(encoded, encoder)
    labels = whole.pop("labels")
    with torch.inference_mode():
        logits = model(**whole).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )
    assert losses[0] == pytest.approx(expected.item(), rel=1e-5)


def test_the_look_ups_weigh_beside_the_language_loss_and_leave_it_as_it_is(fresh_model, encoder):
    model = fresh_model().eval()
    lookups, _, batch = encode_lessons(encoder, 4)
    gradients, losses = [], []
    for weight in (0.0, 0.5):
        model.zero_grad()
        losses.append(sum_losses(model, lookups, [batch(range(4))], weight))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == losses[1]
    assert not torch.equal(gradients[0], gradients[1])


@pytest.fixture
def threads_asked_for(monkeypatch, one_thread):
    """Building sets a number of threads, which would outlast the test."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    return asked


def test_building_leaves_a_base_that_loads_and_a_card_with_its_figures(
    tmp_path, monkeypatch, threads_asked_for
):
    monkeypatch.setattr(building, "NUM_TEXTS", 300)
    figures = building.build_base(tmp_path, TINY, 2)
    assert threads_asked_for == [1], "the weights depend on it"
    assert figures["num_scenes"] == 2 and 0 <= figures["caption"] <= 1
    weights = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 16 * 2**20
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2_5_vl"
    assert config["text_config"]["vocab_size"] == len(processor.tokenizer)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "$" not in card and f"{figures['caption']:.1%}" in card
    assert f"{figures['where']:.1%}" in card and "2 steps of dense look-ups" in card
    assert f"{figures['frames']:.1%}" in card
    assert "python -m recipes.nano" in card
