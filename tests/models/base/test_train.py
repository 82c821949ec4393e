import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from pixelis.data.encode import IGNORE_INDEX, collate
from pixelis.data.scenes import GRID
from pixelis.models.base import __main__ as building
from pixelis.models.base import train as training
from pixelis.models.base.architecture import build_config, build_model
from pixelis.models.base.blend import FINDING, SEEING, build_item
from pixelis.models.base.train import (
    LONG,
    PHASES,
    BlendBatches,
    Phase,
    Recipe,
    sum_losses,
    train_blend,
    train_vision,
    visual_places,
)

PHASE_ONE = Phase("seeing", SEEING, steps=2, learning_rate=1.5e-3, num_threads=1)
PHASE_TWO = Phase("finding", FINDING, steps=2, learning_rate=1e-3, num_threads=2)
TINY = Recipe(vision_steps=2, phases=(PHASE_ONE, PHASE_TWO), batch_size=3)


def fresh_model(tokenizer):
    torch.manual_seed(0)
    return build_model(build_config(tokenizer))


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def train_twice_over(tokenizer, processor, encoder):
    """The tower and one phase from fresh weights: what was reported, and the weights."""
    reports = []
    model = fresh_model(tokenizer)
    train_vision(model, processor, TINY, lambda *report: reports.append(report))
    train_blend(model, encoder, TINY, PHASE_ONE, lambda *report: reports.append(report))
    return reports, {name: value.clone() for name, value in model.state_dict().items()}


def test_the_same_recipe_gives_the_same_weights_to_the_bit(
    tokenizer, processor, encoder, one_thread
):
    runs = [train_twice_over(tokenizer, processor, encoder) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
    assert [report[0] for report in runs[0][0]] == [1, 2, 1, 2]
    # It has learned from it: every part of the model has moved.
    before = fresh_model(tokenizer).state_dict()
    still = {name for name in before if torch.equal(before[name], runs[0][1][name])}
    assert still == set()


def test_the_vision_phase_moves_the_vision_tower_alone(tokenizer, processor, one_thread):
    model = fresh_model(tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_vision(model, processor, TINY, lambda *report: None)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved == {name for name in before if ".visual." in name}


def test_a_batch_is_a_function_of_seed_and_step(encoder):
    batches = BlendBatches(encoder, TINY, PHASE_ONE)
    assert len(batches) == PHASE_ONE.steps
    first = batches[1]
    for again in (batches[1], BlendBatches(encoder, TINY, PHASE_ONE)[1]):
        assert len(again) == len(first)
        assert all(same(one, two) for one, two in zip(first, again, strict=True))
    other_seed = replace(TINY, seed=1)
    for other in (batches[0], BlendBatches(encoder, other_seed, PHASE_ONE)[1]):
        assert [part["input_ids"].tolist() for part in other] != [
            part["input_ids"].tolist() for part in first
        ]


def test_no_item_of_an_earlier_phase_comes_again(encoder, monkeypatch):
    drawn = []

    def remember(seed, index, weights):
        drawn.append((index, weights))
        return build_item(seed, index, weights)

    monkeypatch.setattr(training, "build_item", remember)
    for phase in TINY.phases:
        batches = BlendBatches(encoder, TINY, phase)
        for step in range(len(batches)):
            assert batches[step]
    assert [index for index, _ in drawn] == list(range(12))
    assert [weights for _, weights in drawn] == [SEEING] * 6 + [FINDING] * 6


def test_seeing_comes_before_finding():
    names = [phase.name for phase in PHASES]
    assert names == ["seeing", "finding", "placing", "mending", "following"]
    assert Recipe().phases == PHASES


def test_places_are_the_rows_and_columns_of_the_merged_grid():
    grids = torch.tensor([[1, 4, 6], [1, 2, 2]])
    expected = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [0, 0]]
    assert visual_places(grids, 2).tolist() == expected


def test_the_place_loss_teaches_the_head_and_leaves_the_language_loss_as_it_is(tokenizer, encoder):
    model = fresh_model(tokenizer).eval()
    head = torch.nn.Linear(model.config.text_config.hidden_size, 2 * GRID)
    items = [encoder.encode(build_item(0, index)) for index in range(4)]
    without = sum_losses(model, head, [collate(items, encoder)], 0.0)
    assert head.weight.grad is None
    beside = sum_losses(model, head, [collate(items, encoder)], 0.5)
    assert head.weight.grad.abs().sum() > 0
    assert beside == pytest.approx(without)


def test_a_batch_holds_its_items_once_short_apart_from_long(encoder):
    recipe = Recipe(batch_size=24)
    short, long = BlendBatches(encoder, recipe, PHASES[0])[3]
    lengths = {"short": short["attention_mask"].sum(1), "long": long["attention_mask"].sum(1)}
    assert lengths["short"].max() < LONG <= lengths["long"].min()
    expected = sorted(len(encoder.encode(build_item(0, 3 * 24 + slot))) for slot in range(24))
    assert torch.cat([lengths["short"], lengths["long"]]).tolist() == expected


def test_the_loss_of_the_parts_is_the_mean_over_all_supervised_tokens(tokenizer, encoder):
    model = fresh_model(tokenizer).eval()
    encoded = [encoder.encode(build_item(0, index)) for index in range(4)]
    head = torch.nn.Linear(model.config.text_config.hidden_size, 2 * GRID)
    gradients, losses = [], []
    for parts in ([encoded], [encoded[:1], encoded[1:]]):
        model.zero_grad()
        batch = [collate(part, encoder) for part in parts]
        losses.append(sum_losses(model, head, batch, 0.0)[0])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)
    # And it is the mean that torch itself takes over them.
    batch = collate(encoded, encoder)
    labels = batch.pop("labels")
    with torch.inference_mode():
        logits = model(**batch).logits
    whole = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )
    assert losses[0] == pytest.approx(whole.item(), rel=1e-5)


@pytest.fixture
def threads_asked_for(monkeypatch, one_thread):
    """Building sets a number of threads, which would outlast the test."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    return asked


def test_building_leaves_a_base_that_loads_and_a_card_with_its_figures(
    tmp_path, monkeypatch, threads_asked_for
):
    monkeypatch.setattr(building, "NUM_TEXTS", 60)
    figures = building.build_base(tmp_path, TINY, 2)
    assert threads_asked_for == [1, 1, 2], "the weights depend on it"
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
    assert "2 steps of seeing (peak learning rate 0.0015), then 2 steps of finding" in card
    assert "python -m pixelis.models.base" in card


def test_the_last_phase_can_be_redone_alone(tmp_path, monkeypatch, threads_asked_for):
    monkeypatch.setattr(building, "NUM_TEXTS", 60)
    nothing_seen = dict.fromkeys(("caption", "attribute"), 0.0)
    monkeypatch.setattr(building, "measure", lambda *_: nothing_seen)
    building.build_base(tmp_path / "whole", TINY, 2)
    building.build_base(tmp_path / "parts", replace(TINY, phases=(PHASE_ONE,)), 2)
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert not same(load_file(tmp_path / "parts" / "model.safetensors"), whole)
    building.build_base(tmp_path / "parts", TINY, 2, first_phase=1)
    assert same(load_file(tmp_path / "parts" / "model.safetensors"), whole)
