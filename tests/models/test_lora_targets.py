"""Which layers get an adapter, on the published models' own sizes (on the meta device)."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from pixelis.config import ModelConfig, load_config
from pixelis.config import ModelFileConfig as FileConfig
from pixelis.errors import ConfigError
from pixelis.models.families import PUBLISHED
from pixelis.models.lora import add_lora

CONFIGS = Path(__file__).parent.parent.parent / "configs"
LANGUAGE = [
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
VISION = {
    "Qwen2.5": ["attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    "Qwen3": ["attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"],
}
MERGER = {
    "Qwen2.5": ["model.visual.merger.mlp.0", "model.visual.merger.mlp.2"],
    "Qwen3": [
        f"model.visual.{merger}.linear_fc{number}"
        for merger in ("merger", *(f"deepstack_merger_list.{i}" for i in range(3)))
        for number in (1, 2)
    ],
}


def family(name):
    return name.partition("-")[0]


def build(published, name):
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(published[name].config)


def adapt(base, **changed):
    settings = {"lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.1} | changed
    return add_lora(base, ModelConfig(model_name="a name", **settings), seed=0)


def targets(model):
    names = [name for name, _ in model.named_modules() if name.endswith(".lora_A.default")]
    return {n.removeprefix("base_model.model.").removesuffix(".lora_A.default") for n in names}


def language_layers(config):
    return {
        f"model.language_model.layers.{layer}.{name}"
        for layer in range(config.text_config.num_hidden_layers)
        for name in LANGUAGE
    }


def vision_layers(config, name):
    return {
        f"model.visual.blocks.{block}.{inner}"
        for block in range(config.vision_config.depth)
        for inner in VISION[family(name)]
    }


def trainable(model):
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_those_of_the_published_models(published, name):
    model = build(published, name)
    assert sum(parameter.numel() for parameter in model.parameters()) == (
        published[name].num_parameters
    )
    assert model.config.dtype == torch.bfloat16


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_language_models_linear_layers_and_nothing_else(published, name):
    model, known = adapt(build(published, name)), published[name]
    assert targets(model) == language_layers(known.config)
    parameters = trainable(model)
    assert sum(parameters.values()) == known.num_trainable
    assert [n for n in parameters if ".visual." in n or "lora_" not in n] == []


@pytest.mark.parametrize("name", ["Qwen2.5-VL-7B", "Qwen3-VL-8B"])
@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize("merger", [False, True])
def test_vision_tower_and_merger_when_asked(published, name, vision, merger):
    model = adapt(build(published, name), train_vision=vision, train_merger=merger)
    config = published[name].config
    expected = language_layers(config)
    expected |= vision_layers(config, name) if vision else set()
    expected |= set(MERGER[family(name)]) if merger else set()
    assert targets(model) == expected


def test_the_7bs_file_on_the_7b(published):
    file = load_config(FileConfig, CONFIGS / "model_arch_qwen2_5_vl_7b.yaml").model
    assert isinstance(file, ModelConfig)
    model = add_lora(build(published, "Qwen2.5-VL-7B"), file, seed=0)
    assert sum(trainable(model).values()) == 80_740_352
    layer = model.get_submodule("base_model.model.model.language_model.layers.27.mlp.up_proj")
    assert layer.scaling["default"] == 2.0
    assert layer.lora_dropout["default"].p == 0.1


def test_a_model_of_another_build_is_refused():
    with pytest.raises(ConfigError, match="^Linear has no linear layer that matches .*families$"):
        adapt(torch.nn.Linear(2, 2))
