"""PiSSA and OLoRA: what is saved says the same on the untouched base."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from pixelis.config import CHANGING_INITS
from pixelis.models.load import load_model
from pixelis.models.lora import (
    add_lora,
    convert_to_plain_lora,
    initial_factors,
    split_plain_lora,
    subtract_from_base,
)

NANO = "pixelis-nano"
IDS = torch.arange(5, 45)[None]
LAYER = "model.language_model.layers.0.mlp.up_proj"


def base():
    return load_model(NANO, torch_dtype="float32")


def adapt(init, **changed):
    settings = {"lora_r": 4, "lora_alpha": 12, "lora_dropout": 0.0, "seed": 0} | changed
    return add_lora(base(), model_name=NANO, init_lora_weights=init, **settings).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def move(model):
    """Some training: every trained weight moves."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.1 * parameter.std() * noise


@pytest.mark.parametrize("init", CHANGING_INITS)
def test_before_training_nothing_is_changed_but_the_base(init):
    model, plain = adapt(init), base()
    torch.testing.assert_close(logits(model), logits(plain), atol=1e-4, rtol=0)
    weight = model.get_submodule(f"base_model.model.{LAYER}").base_layer.weight
    assert not torch.allclose(weight, plain.get_submodule(LAYER).weight, atol=1e-3)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("init", CHANGING_INITS)
def test_the_saved_adapter_says_the_same_on_the_untouched_base(
    init, use_dora, use_rslora, tmp_path
):
    model = adapt(init, use_dora=use_dora, use_rslora=use_rslora)
    initial = initial_factors(model)
    move(model)
    said = logits(model)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    convert_to_plain_lora(tmp_path, initial)
    untouched = base()
    before = logits(untouched)
    loaded = PeftModel.from_pretrained(untouched, str(tmp_path)).eval()
    assert (said - before).abs().max() > 0.1  # there is something to be equal in
    torch.testing.assert_close(logits(loaded), said, atol=2e-4, rtol=0)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), before)


def test_it_is_a_plain_adapter_of_twice_the_rank(tmp_path):
    model = adapt("pissa")
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    convert_to_plain_lora(tmp_path, initial_factors(model))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 24, True)
    assert config["base_model_name_or_path"] == NANO


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_halves_come_back_and_make_the_same_model(dtype, tmp_path):
    settings = {"lora_r": 4, "lora_alpha": 12, "lora_dropout": 0.0, "seed": 0}

    def fresh(init):
        loaded = load_model(NANO, torch_dtype=dtype)
        return add_lora(loaded, model_name=NANO, init_lora_weights=init, **settings).eval()

    initial = initial_factors(fresh("pissa"))
    first = fresh("default")
    subtract_from_base(first, initial)
    first.load_state_dict(with_adapter(initial), strict=False)
    first.save_pretrained(str(tmp_path), save_embedding_layers=False)
    convert_to_plain_lora(tmp_path, initial)
    trained, again = split_plain_lora(load_file(tmp_path / "adapter_model.safetensors"))
    assert set(again) == set(initial)
    assert all(torch.equal(again[name], value) for name, value in initial.items())
    second = fresh("default")
    subtract_from_base(second, again)
    second.load_state_dict(with_adapter(trained), strict=False)
    assert torch.equal(logits(first), logits(second))


def with_adapter(tensors):
    return {name.replace(".weight", ".default.weight"): value for name, value in tensors.items()}
