"""Models and adapters that would run code, use up memory, or are not what they say: refused.

By the loaders of every entry point. Code that a folder brings leaves a file where it is run.
"""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelis.config import ModelConfig
from pixelis.errors import UserError
from pixelis.models.load import EMBEDDED_DIR, check_weights, load_model, load_processor
from pixelis.models.lora import add_lora, check_adapter, load_adapter
from tests.faults.hostile import edit, refused

NANO = "pixelis-nano"
EVIL = """
open({place!r}, "w").close()


class Evil:
    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        return cls()
"""


class Pickled:
    """What opens it runs code."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


@pytest.fixture
def told(tmp_path):
    """The file that is there once foreign code was run; it must not be."""
    place = tmp_path / "told"
    yield place
    assert not place.exists(), "foreign code was run"


@pytest.fixture
def folder(tmp_path, told):
    """A copy of the embedded base with a module of its own, that a test may harm."""
    place = shutil.copytree(EMBEDDED_DIR, tmp_path / "model")
    (place / "evil.py").write_text(EVIL.format(place=str(told)))
    return place


@pytest.fixture(scope="module")
def base():
    return load_model(NANO, torch_dtype="float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An adapter as `sft` saves it."""
    place = tmp_path_factory.mktemp("lora") / "adapter"
    model = load_model(NANO, torch_dtype="float32")
    adapted = add_lora(
        model, ModelConfig(model_name=NANO, lora_r=4, lora_alpha=8, lora_dropout=0.0), seed=0
    )
    adapted.save_pretrained(str(place), save_embedding_layers=False)
    return place


@pytest.fixture
def adapter(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "adapter")


# Bases


MAP = {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"}
MAPS = {
    "config.json": MAP,
    "tokenizer_config.json": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
    "processor_config.json": {"AutoProcessor": "evil.Evil", "AutoImageProcessor": "evil.Evil"},
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("load", [load_model, load_processor])
def test_code_of_its_own_is_not_run_without_leave(folder, name, load):
    edit(folder / name, auto_map=MAPS[name])
    said = refused(load, str(folder))
    assert said.startswith(f"{folder / name} asks for code of its own (auto_map: ")
    assert said.endswith("it is run only where model.trust_remote_code is true")


def test_code_of_an_unknown_kind_of_model(folder):
    edit(folder / "config.json", auto_map=MAP, model_type="evil")
    assert "asks for code of its own" in refused(load_model, str(folder))


def test_code_that_a_part_of_a_configuration_asks_for(folder):
    edit(folder / "config.json", vision_config__auto_map=MAP)
    assert "asks for code of its own" in refused(load_model, str(folder))


def test_leave_is_leave(folder):
    """The check is the flag's and nothing else's: with it the folder loads, by the known class."""
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Evil"})
    assert load_model(str(folder), trust_remote_code=True)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickled_weights(folder, told, name):
    (folder / "model.safetensors").unlink()
    torch.save(Pickled(told), folder / name)
    for load in (load_model, check_weights):
        said = refused(load, str(folder))
        assert f"holds no *.safetensors; {name} can run code when opened and is not read" in said


def test_pickled_weights_beside_right_ones_are_not_touched(folder, told):
    torch.save(Pickled(told), folder / "pytorch_model.bin")
    torch.save(Pickled(told), folder / "training_args.bin")
    assert load_model(str(folder))


def test_weights_that_are_pickles_under_another_name(folder, told):
    torch.save(Pickled(told), folder / "model.safetensors")
    assert "model.safetensors is damaged" in refused(load_model, str(folder))


def test_weights_that_lack_a_tensor_are_not_drawn_by_lot(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = [name for name in tensors if ".layers.0.mlp." in name]
    kept = {name: value for name, value in tensors.items() if name not in lost}
    save_file(kept, path, metadata={"format": "pt"})
    said = refused(load_model, str(folder))
    assert f"its weights lack {len(lost)} tensors, such as " in said


def test_a_base_in_the_home_of_nobody():
    for load in (load_model, load_processor):
        with pytest.raises(UserError) as caught:
            load("~nosuchuser/x")
        assert str(caught.value) == "'~nosuchuser/x' is in a home folder that is not known here"


def test_an_index_that_leads_out_of_the_folder(folder):
    names = list(load_file(folder / "model.safetensors"))
    shutil.copy(folder / "model.safetensors", folder.parent / "stolen.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../stolen.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(load_model, str(folder))
    assert "weight_map must name files of the folder, got '../stolen.safetensors'" in said


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("text_config__num_hidden_layers", 10**6, "must be at most the number of tensors"),
        ("vision_config__depth", 10**9, "must be at most the number of tensors"),
        ("text_config__vocab_size", 10**10, "no model for "),
        ("text_config__hidden_size", 10**9, "no model for "),
        ("text_config__hidden_size", "x", "no model for "),
        ("text_config__hidden_size", 96, "no model for "),
        ("text_config__num_hidden_layers", None, "no model for "),
        ("text_config__num_attention_heads", 0, "no model for "),
        ("text_config", [1], "no model for "),
        ("dtype", "evil", "no model for "),
        ("attn_implementation", "somebody/evil-kernel", "no model for "),
        ("quantization_config", {"quant_method": "gptq"}, "no model for "),
        ("model_type", "evil", "no model for "),
    ],
    ids=range(13),
)
def test_configurations_that_are_bombs_or_nonsense(folder, key, value, rule):
    edit(folder / "config.json", **{key: value})
    assert rule in refused(load_model, str(folder))


# Adapters


def set_adapter(adapter, **changes):
    edit(adapter / "adapter_config.json", **changes)


def test_the_adapter_is_right_before_it_is_changed(adapter, base):
    check_adapter(adapter, model_name=NANO)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"r": 10**6}, "r must be at most the rank of the weights, 4, got 1000000"),
        ({"r": 10**400}, "r must be at most the rank of the weights, 4, got 1000"),
        ({"r": 0}, "r must be an integer >= 1, got 0"),
        ({"r": "8"}, "r must be an integer >= 1, got '8'"),
        ({"r": True}, "r must be an integer >= 1, got True"),
        ({"rank_pattern": {"q_proj": 10**6}}, "r must be at most the rank of the weights, 4"),
        ({"rank_pattern": {"(a+)+": 4}}, "rank_pattern must name layers, without a pattern"),
        ({"rank_pattern": [4]}, "rank_pattern must name layers, without a pattern"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number of at most 1000000, got nan"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number of at most 1000000, got 1000"),
        ({"alpha_pattern": {"q_proj": "x"}}, "lora_alpha must be a number of at most 1000000"),
        ({"init_lora_weights": "pissa_niter_1000000000"}, "init_lora_weights must be one of true"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights must be one of true, false, null, "),
        ({"init_lora_weights": ["eva"]}, "init_lora_weights must be one of true, false, null, "),
        ({"init_lora_weights": 1}, "init_lora_weights must be one of true, false, null, "),
        ({"init_lora_weights": None}, None),
        ({"init_lora_weights": "gaussian"}, None),
        ({"target_modules": "(.*.*.*)*x"}, "target_modules must name layers, without a pattern"),
        ({"target_modules": ["(a+)+"]}, "target_modules must name layers, without a pattern"),
        ({"target_modules": 3}, "target_modules must name layers, without a pattern"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type must be LORA, got 'PREFIX_TUNING'"),
        ({"peft_type": None}, "peft_type must be LORA, got None"),
        ({"megatron_config": {}, "megatron_core": "evil"}, None),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_config must not be set"),
        ({"layer_replication": [[0, 4]] * 1000}, "layer_replication must not be set"),
        ({"auto_mapping": {"parent_library": "evil"}}, "auto_mapping must not be set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save must not be set"),
        ({"exclude_modules": "(a+)+$"}, "exclude_modules must not be set"),
        ({"target_parameters": ["weight"]}, "target_parameters must not be set"),
        ({"of_the_future": 1}, "of_the_future must not be set"),
        ({"base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct"}, "is for the base 'Qwen/"),
        ({"base_model_name_or_path": 7}, "is for the base 7, not for 'pixelis-nano'"),
        ({"base_model_name_or_path": None}, "is for the base None, not for 'pixelis-nano'"),
        ({"base_model_name_or_path": "~nosuchuser/x"}, "is for the base '~nosuchuser/x', not for"),
        ({"base_model_name_or_path": "\x1b[2J\nx"}, r"is for the base '\x1b[2J\nx', not for"),
    ],
    ids=range(35),
)
def test_adapters_that_are_not_let_in(adapter, changes, rule):
    set_adapter(adapter, **changes)
    if rule is None:
        check_adapter(adapter, model_name=NANO)
    else:
        assert rule in refused(check_adapter, adapter, model_name=NANO)


def test_an_adapter_of_rank_a_million_takes_no_memory(adapter, base):
    set_adapter(adapter, r=10**6)
    assert "rank of the weights" in refused(load_adapter, base, adapter, model_name=NANO)


@pytest.mark.parametrize("name", ["z.lora_A.weight", "base_model.z.lora_A.weight"])
@pytest.mark.parametrize("width", [0, 1, 64])
def test_a_tensor_without_numbers_or_too_narrow_has_no_rank(adapter, base, name, width):
    path = adapter / "adapter_model.safetensors"
    planted = torch.zeros(10**6, width, dtype=torch.int8)
    save_file({**load_file(path), name: planted}, path)
    set_adapter(adapter, r=10**6)
    rule = "r must be at most the rank of the weights, 4, got 1000000"
    assert rule in refused(load_adapter, base, adapter, model_name=NANO)


@pytest.mark.parametrize("harm", ["no layer's", "cut off"])
def test_a_rank_of_a_million_without_weights_to_hold_it_against(adapter, base, harm):
    path = adapter / "adapter_model.safetensors"
    if harm == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        save_file({f"evil.{name}": value for name, value in load_file(path).items()}, path)
    set_adapter(adapter, r=10**6)
    said = refused(load_adapter, base, adapter, model_name=NANO)
    assert ("rank of the weights, 0" if harm == "no layer's" else "does not fit") in said


def test_a_pickled_adapter(adapter, told):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(Pickled(told), adapter / "adapter_model.bin")
    said = refused(check_adapter, adapter, model_name=NANO)
    assert "adapter_model.safetensors is missing; adapter_model.bin can run code" in said


def test_an_adapter_that_is_a_pickle_under_another_name(adapter, base, told):
    torch.save(Pickled(told), adapter / "adapter_model.safetensors")
    said = refused(load_adapter, base, adapter, model_name=NANO)
    assert re.match(r"the adapter in .* does not fit 'pixelis-nano': ", said)


@pytest.mark.parametrize("harm", ["shape", "name", "cut off", "header"])
def test_weights_of_an_adapter_that_do_not_fit(adapter, base, harm):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    if harm == "shape":
        save_file({name: value[:, :1].clone() for name, value in tensors.items()}, path)
    elif harm == "name":
        save_file({f"evil.{name}": value for name, value in tensors.items()}, path)
    elif harm == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes((2**62).to_bytes(8, "little") + b"{")
    said = refused(load_adapter, base, adapter, model_name=NANO)
    rule = "at most the rank of the weights, 0" if harm == "name" else "does not fit 'pixelis-nano'"
    assert rule in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_an_adapter_that_are_not_finite(adapter, base, value):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path)
    said = refused(load_adapter, base, adapter, model_name=NANO)
    assert f"holds weights that are not finite (NaN or infinite), in 1 of {len(tensors)}" in said
    assert name in said


def test_a_configuration_nested_without_end(adapter):
    (adapter / "adapter_config.json").write_text("[" * 10**6)
    assert "adapter_config.json cannot be read" in refused(check_adapter, adapter, model_name=NANO)
