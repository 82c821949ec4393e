"""Ranks from the data: within the budget, saved with the adapter, and what was measured is so."""

import pytest
import torch
from peft import PeftModel

from pixelis.config import ModelConfig
from pixelis.data.chat import example_messages
from pixelis.data.encode import IGNORE_INDEX, Encoder, collate
from pixelis.data_prep.generate import generate_example
from pixelis.errors import ConfigError
from pixelis.models.eva import fit_eva, positions_needed
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora

NANO = "pixelis-nano"
RANK, SPREAD = 6, 2.0
IDS = torch.arange(5, 45)[None]


@pytest.fixture(scope="module")
def batches():
    encoder = Encoder(load_processor(NANO, max_pixels=12544))
    items = [
        encoder.encode(
            example_messages(
                generate_example(seed=1, index=i, task="spatial_reasoning", sample_type="positive")
            )
        )
        for i in range(12)
    ]
    return [collate(items[i : i + 4], encoder) for i in (0, 4, 8)]


def adapt(dtype="float32", **changed):
    base = load_model(NANO, torch_dtype=dtype)
    settings = {"lora_auto_rank": RANK, "lora_alpha": 12, "lora_dropout": 0.0} | changed
    config = ModelConfig(model_name=NANO, lora_r="auto", lora_auto_spread=SPREAD, **settings)
    return add_lora(base, config, seed=0)


@pytest.fixture(scope="module")
def fitted(batches):
    model = adapt()
    return model, fit_eva(model, batches)


def ranks_of(model):
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default"): len(module.weight)
        for name, module in model.named_modules()
        if name.endswith(".lora_A.default")
    }


def test_the_budget_is_dealt_out_over_the_layers(fitted):
    model, spectra = fitted
    ranks = {one.layer: one.rank for one in spectra}
    assert len(ranks) == 4 * 7
    assert sum(ranks.values()) == 4 * 7 * RANK
    assert len(set(ranks.values())) > 2  # else there was no need to look
    assert max(ranks.values()) <= RANK * SPREAD
    assert {name: rank for name, rank in ranks.items() if rank} == ranks_of(model)


def test_directions_with_more_variance_come_first(fitted):
    _, spectra = fitted
    kept = [share for one in spectra for share in one.explained[: one.rank]]
    dropped = [share for one in spectra for share in one.explained[one.rank :]]
    assert min(kept) >= max(dropped) - 1e-6
    for one in spectra:
        assert list(one.singular_values) == sorted(one.singular_values, reverse=True)
        assert 0 < sum(one.explained) <= 1


def test_what_was_measured_is_the_variance_of_the_layers_inputs(fitted, batches):
    _, spectra = fitted
    (one,) = [s for s in spectra if s.layer == "model.language_model.layers.0.self_attn.o_proj"]
    model, seen = load_model(NANO, torch_dtype="float32"), []
    layer = model.get_submodule(one.layer)
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for batch in batches:
        with torch.no_grad():
            model(**{name: value for name, value in batch.items() if name != "labels"})
    chosen = [x[b["labels"] != IGNORE_INDEX] for x, b in zip(seen, batches, strict=True)]
    inputs = torch.cat(chosen)
    values = torch.linalg.svdvals(inputs - inputs.mean(0)) ** 2
    expected = (values / values.sum())[: len(one.explained)]
    # Measured a batch at a time, until the directions settle.
    torch.testing.assert_close(torch.tensor(one.explained), expected, atol=0.03, rtol=0.15)


def test_a_fresh_adapter_changes_nothing(fitted):
    model, _ = fitted
    with torch.no_grad():
        said = model.eval()(input_ids=IDS).logits
        assert torch.equal(said, load_model(NANO, torch_dtype="float32")(input_ids=IDS).logits)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("use_dora", [False, True])
def test_it_is_loaded_as_any_other_adapter(batches, tmp_path, use_dora, use_rslora):
    model = adapt(use_dora=use_dora, use_rslora=use_rslora)
    fit_eva(model, batches)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(load_model(NANO, torch_dtype="float32"), str(tmp_path))
    assert ranks_of(loaded) == ranks_of(model)
    assert loaded.peft_config["default"].rank_pattern
    with torch.no_grad():
        said = model.eval()(input_ids=IDS).logits
        assert torch.equal(loaded.eval()(input_ids=IDS).logits, said)


def test_the_same_data_give_the_same_adapter(batches):
    first, second = (adapt() for _ in range(2))
    assert fit_eva(first, batches) == fit_eva(second, batches)
    same = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    configs = [model.peft_config["default"].to_dict() for model in (first, second)]
    assert configs[0] == configs[1]


def test_all_is_trained_in_fp32_on_a_base_in_bf16(batches):
    model = adapt("bfloat16")
    fit_eva(model, batches)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_the_vision_towers_layers_look_at_patches(batches):
    model = adapt(lora_auto_rank=4, train_vision=True, train_merger=True)
    spectra = fit_eva(model, batches)
    assert any(".visual." in one.layer and one.rank for one in spectra)


def test_how_many_positions_it_takes():
    assert positions_needed(adapt(lora_auto_rank=16)) == 64
    with pytest.raises(ConfigError, match="EVA may give must be <= 96 for this model, got 98 "):
        positions_needed(adapt(lora_auto_rank=49))
