"""The adapter: on every linear layer of the language model and nowhere else; back from disk."""

import json
import re
import shutil

import pytest
import torch

from pixelis.errors import CheckpointError
from pixelis.models.load import load_model
from pixelis.models.lora import add_lora, load_adapter

NANO = "pixelis-nano"


def adapt(base, **changed):
    settings = {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "seed": 0} | changed
    return add_lora(base, model_name=NANO, **settings)


@pytest.fixture
def base():
    return load_model(NANO, torch_dtype="float32")


def test_a_fresh_adapter_changes_nothing_and_follows_its_seed(base):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = base(input_ids=ids).logits
        model = adapt(base, seed=1)
        assert torch.equal(model(input_ids=ids).logits, before)
    weights = [p.clone() for n, p in model.named_parameters() if "lora_A" in n]
    for seed, same in ((1, True), (2, False)):
        other = adapt(load_model(NANO, torch_dtype="float32"), seed=seed)
        found = [p for n, p in other.named_parameters() if "lora_A" in n]
        assert all(torch.equal(a, b) for a, b in zip(weights, found, strict=True)) is same


def test_the_update_is_scaled_by_alpha_over_r(base):
    model = adapt(base, lora_r=4, lora_alpha=12)
    layer = model.get_submodule("base_model.model.model.language_model.layers.0.self_attn.q_proj")
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(2, layer.in_features)
    with torch.no_grad():
        update = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        torch.testing.assert_close(layer(x), layer.base_layer(x) + 3 * update)


# Back from disk


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved adapter, not a fresh one, and what the model says with it."""
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    model = adapt(load_model(NANO, torch_dtype="float32"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    with torch.no_grad():
        said = model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return folder, said


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may harm."""
    shutil.copytree(saved[0], tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_saved_adapter_says_the_same_again(saved, base):
    folder, said = saved
    model = load_adapter(base, folder, model_name=NANO)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits, said)


def test_a_base_in_a_home_folder_is_the_same_as_the_tracker_writes_it(
    saved, base, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = shutil.copytree(saved[0], tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "~/qwen"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert load_adapter(base, folder, model_name=str(tmp_path / "qwen"))


def test_an_adapter_of_another_base_is_refused(saved, base):
    folder, _ = saved
    with pytest.raises(CheckpointError) as caught:
        load_adapter(base, folder, model_name="Qwen/Qwen2.5-VL-7B-Instruct")
    assert str(caught.value) == (
        f"the adapter in {folder} is for the base 'pixelis-nano', "
        "not for 'Qwen/Qwen2.5-VL-7B-Instruct'; set model.model_name='pixelis-nano'"
    )


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter(folder, base, name):
    (folder / name).unlink()
    expected = f"{folder} holds no adapter: {name} is missing"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load_adapter(base, folder, model_name=NANO)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_configuration_that_cannot_be_read(folder, base, content):
    (folder / "adapter_config.json").write_bytes(content)
    expected = f"{folder / 'adapter_config.json'} cannot be read: "
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}.*$"):
        load_adapter(base, folder, model_name=NANO)
