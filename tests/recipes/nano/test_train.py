import itertools
import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from pixelis.data.encode import IGNORE_INDEX, collate
from pixelis.data_prep.scenes import build_scene, render
from recipes.nano import __main__ as building
from recipes.nano.blend import build_lesson
from recipes.nano.decisions import STAGES
from recipes.nano.train import (
    LONG,
    Lookups,
    Recipe,
    build_blend,
    build_rows,
    decision_loss,
    sum_losses,
    train_decisions,
)

pytestmark = pytest.mark.integration

TINY = Recipe(
    vision_steps=3,
    comparison_steps=3,
    recall_steps=3,
    decision_steps=3,
    review_steps=3,
    decision_rows=2,
    decision_length=64,
    lookup_steps=3,
    blend_steps=3,
    image_rows=2,
    batch_size=3,
    num_processes=1,
)


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


def test_the_same_recipe_gives_the_same_weights_to_the_bit(fresh_model, encoder, one_thread):
    runs = []
    for _ in range(2):
        model, reports = fresh_model(), []
        for train in building.PHASES.values():
            train(model, encoder, TINY, lambda *report, to=reports: to.append(report))
        runs.append((reports, model.state_dict()))
    assert runs[0][0] == runs[1][0]
    assert [report[0] for report in runs[0][0]] == [1, 2, 3] * len(building.PHASES)
    assert same(runs[0][1], runs[1][1])
    # It has learned from it: every part of the model has moved.
    before = fresh_model().state_dict()
    assert {name for name in before if torch.equal(before[name], runs[0][1][name])} == set()


def test_a_batch_is_a_function_of_seed_and_step(encoder):
    def build(recipe, step):
        parts, rows = build_blend(encoder, recipe, Lookups(encoder.tokenizer), step)
        return [*parts, rows, build_rows(encoder, recipe, step, "lookup")]

    first, again = build(TINY, 1), build(TINY, 1)
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    for recipe, step in ((TINY, 0), (replace(TINY, seed=1), 1)):
        ids = [part["input_ids"].tolist() for part in build(recipe, step)]
        assert all(part["input_ids"].tolist() not in ids for part in first)


def test_a_batch_holds_its_items_once_short_apart_from_long(encoder):
    recipe = Recipe(batch_size=24)
    (short, long), _ = build_blend(encoder, recipe, Lookups(encoder.tokenizer), 3)
    lengths = {"short": short["attention_mask"].sum(1), "long": long["attention_mask"].sum(1)}
    assert lengths["short"].max() < LONG <= lengths["long"].min()
    lessons = [build_lesson(0, 3 * 24 + slot) for slot in range(24)]
    expected = sorted(len(encoder.encode(lesson.messages)) for lesson in lessons)
    assert torch.cat([lengths["short"], lengths["long"]]).tolist() == expected


def test_rows_of_decisions_stand_alone_and_behind_an_image(encoder):
    alone = build_rows(encoder, TINY, 0, "lookup")
    assert alone["input_ids"].shape == alone["labels"].shape == (2, 64)
    _, behind = build_blend(encoder, TINY, Lookups(encoder.tokenizer), 0)
    num_visual = encoder.num_image_tokens(render(build_scene(random.Random(0), []))) + 2
    assert behind["input_ids"].shape == (2, num_visual + 64)
    assert behind["image_grid_thw"].tolist() == [[1, 8, 8]] * 2
    assert (behind["labels"][:, :num_visual] == IGNORE_INDEX).all()
    for batch in (alone, behind):
        assert (batch["labels"] != IGNORE_INDEX).any(1).all()


def test_the_loss_of_decisions_is_the_mean_over_the_decided_tokens(fresh_model, encoder):
    model, rows = fresh_model().eval(), build_rows(encoder, TINY, 1, "decision")
    with torch.inference_mode():
        hidden = model.model.language_model(
            inputs_embeds=model.model.language_model.embed_tokens(rows["input_ids"])
        ).last_hidden_state
        loss, right = decision_loss(model, hidden, rows["labels"])
        logits = model(input_ids=rows["input_ids"]).logits[:, :-1].flatten(0, 1)
    labels = rows["labels"][:, 1:].flatten()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels))
    at = labels != IGNORE_INDEX
    assert right == pytest.approx((logits[at].argmax(-1) == labels[at]).float().mean().item())


def test_decisions_train_the_language_model_in_stages(fresh_model, encoder, one_thread):
    before, trained = fresh_model().state_dict(), []
    for stage in STAGES:
        model = fresh_model()
        train_decisions(model, encoder, TINY, lambda *report: None, stage=stage)
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, before[name]) == (".visual." in name), name
    assert not any(same(*pair) for pair in itertools.combinations(trained, 2))
    rows = build_rows(encoder, TINY, 0, "comparison")
    text = encoder.tokenizer.decode(rows["input_ids"].flatten())
    assert text.count(" by ") == text.count(" by row, ") + text.count(" by column, ") > 3


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


@pytest.fixture
def few_texts(monkeypatch):
    monkeypatch.setattr(building, "NUM_TEXTS", 300)


def test_building_leaves_a_base_that_loads_and_a_card_with_its_scores(
    tmp_path, few_texts, threads_asked_for
):
    base = tmp_path / "base"
    scores = building.build_base(base, TINY, 5, tmp_path / "kept")
    assert threads_asked_for == [1, 1], "the weights depend on the first"
    assert set(scores) > {"caption", "frames", "order_4", "recall", "list_5"}
    weights = load_file(base / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert sum(path.stat().st_size for path in base.iterdir()) < 16 * 2**20
    processor = AutoProcessor.from_pretrained(base)
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2_5_vl"
    assert config["text_config"]["vocab_size"] == len(processor.tokenizer)
    card = (base / "README.md").read_text(encoding="utf-8")
    assert "$" not in card and "on 5 held-out scenes" in card
    assert all(f"{score:.1%}" in card for score in scores.values())
    assert "3 steps of dense look-ups" in card and "3 on all." in card
    assert "python -m recipes.nano" in card


def test_two_processes_train_on_batches_of_their_own_and_agree(
    tmp_path, few_texts, threads_asked_for
):
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "two again"]
    for folder, num_processes in zip(folders, (1, 2, 2), strict=True):
        recipe = replace(TINY, num_processes=num_processes)
        building.build_in_processes(folder, recipe, 5, tmp_path / f"kept {folder.name}")
    one, two, again = (load_file(folder / "model.safetensors") for folder in folders)
    assert same(two, again)
    assert not same(one, two), "the second process has other batches"


def test_a_build_that_was_stopped_goes_on_after_its_last_finished_phase(
    tmp_path, few_texts, monkeypatch, threads_asked_for
):
    """And ends with the weights of one that was not stopped; another recipe trains anew."""
    names = ["caption", "attribute", "frames", "where", "recall"]
    names += ["placed", "copy", "listed"]
    names += [f"order_area_{count}" for count in (2, 3, 4)]
    names += [f"order_{count}" for count in (2, 3, 4)] + [f"list_{count}" for count in range(1, 6)]
    monkeypatch.setattr(building, "measure", lambda *args: dict.fromkeys(names, 0.0))
    trained = []

    def recorded(name, train):
        return lambda *args: (trained.append(name), train(*args))

    def stop(*args):
        raise KeyboardInterrupt

    def build(name, kept, recipe=TINY):
        trained.clear()
        building.build_base(tmp_path / name, recipe, 5, tmp_path / kept)
        return load_file(tmp_path / name / "model.safetensors")

    phases = {name: recorded(name, train) for name, train in building.PHASES.items()}
    monkeypatch.setattr(building, "PHASES", {**phases, "lookup": stop})
    with pytest.raises(KeyboardInterrupt):
        build("stopped", "kept")
    assert trained == ["vision", *STAGES] and not (tmp_path / "stopped").exists()
    monkeypatch.setattr(building, "PHASES", phases)
    taken_up = build("stopped", "kept")
    assert trained == ["lookup", "blend"]
    assert same(taken_up, build("at once", "also kept"))
    assert trained == list(phases)
    assert same(taken_up, build("again", "kept")) and trained == []
    assert not same(taken_up, build("other", "kept", replace(TINY, seed=1)))
    assert trained == list(phases)
