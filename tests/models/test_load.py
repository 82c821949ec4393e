"""Loading base models and processors by name or folder, and the errors."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.quantizers.quantizers_utils import should_convert_module

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder
from pixelis.errors import CheckpointError, ConfigError
from pixelis.models import load as load_module
from pixelis.models.load import (
    EMBEDDED_DIR,
    best_device,
    check_weights,
    load_model,
    load_model_config_offline,
    load_processor,
    max_positions,
    on_best_device,
    resolve_model,
)
from pixelis.training.inputs import check_model

NANO = "pixelis-nano"


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded base that a test may harm."""
    shutil.copytree(EMBEDDED_DIR, tmp_path / "model")
    return tmp_path / "model"


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_installation_without_the_embedded_base(monkeypatch, tmp_path):
    monkeypatch.setattr(load_module, "EMBEDDED_DIR", tmp_path)
    expected = f"the embedded base is missing in {tmp_path}; run `make base`"
    for load in (resolve_model, load_model, load_processor):
        with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
            load(NANO)


@pytest.mark.parametrize(
    ("torch_dtype", "expected"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.bfloat16)],
)
def test_the_embedded_base(torch_dtype, expected):
    model = load_model(NANO, torch_dtype=torch_dtype)
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert not model.training
    assert next(model.parameters()).device.type == "cpu"


def test_weights_are_looked_at_before_anything_is_begun(folder):
    for name in (NANO, str(folder), "Qwen/Qwen2.5-VL-7B-Instruct"):
        check_weights(name)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors is damaged"):
        check_weights(str(folder))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"holds no \*.safetensors$"):
        check_weights(str(folder))


def test_a_folder_is_as_good_as_a_name(folder):
    named, found = load_model(NANO).state_dict(), load_model(str(folder)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in named.items())
    assert load_processor(str(folder)).chat_template == load_processor(NANO).chat_template


def test_images_are_bounded_by_the_pixels_given():
    large, small = Image.new("RGB", (448, 448)), Image.new("RGB", (28, 28))

    def tokens(image, **pixels):
        return Encoder(load_processor(NANO, **pixels)).num_image_tokens(image)

    # 28 x 28 pixels a token
    assert tokens(large, max_pixels=112 * 112) == 16
    assert tokens(large, max_pixels=56 * 56, min_pixels=28 * 28) == 4
    assert tokens(small, min_pixels=112 * 112, max_pixels=448 * 448) == 16
    default = load_processor(NANO).image_processor.size
    given = load_processor(NANO, min_pixels=784, max_pixels=3136).image_processor.size
    assert (given["shortest_edge"], given["longest_edge"]) == (784, 3136)
    again = load_processor(NANO).image_processor.size
    assert dict(again) == dict(default)  # no setting leaks from one processor to the next


def test_pixels_that_leave_no_room():
    largest = load_processor(NANO).image_processor.size["longest_edge"]
    expected = f"model.min_pixels must be <= the processor's largest area, got {largest + 1} > "
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}{largest}$"):
        load_processor(NANO, min_pixels=largest + 1)


@pytest.mark.parametrize("name", ["{}/no-model", "./no-model", "outputs/no/model"])
def test_a_folder_that_is_not_there(tmp_path, name):
    place = name.format(tmp_path)
    for load in (load_model, load_processor):
        with pytest.raises(CheckpointError) as caught:
            load(place)
        rule = "model.model_name is pixelis-nano, a hub name or a folder"
        assert one_line(caught) == f"no model folder {place}; {rule}"


def test_a_processor_without_a_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_processor(str(folder))
    assert one_line(caught) == f"the processor of '{folder}' has no chat_template"


def edit_tokenizer(folder, **changes):
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))


@pytest.mark.parametrize("pad_token", [None, "gone"])
def test_a_tokenizer_without_a_pad_token_pads_with_its_end(folder, pad_token):
    edit_tokenizer(folder, pad_token=pad_token)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    tokenizer = load_processor(str(folder)).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None
    assert load_processor(NANO).tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("pad_token", ["gone", "<|endoftext|>"])
def test_a_tokenizer_without_an_end_is_refused(folder, pad_token):
    edit_tokenizer(folder, pad_token=pad_token, eos_token=None)
    with pytest.raises(CheckpointError) as caught:
        load_processor(str(folder))
    assert one_line(caught) == (
        f"the tokenizer of '{folder}' has no eos_token, which ends the assistant's turns"
    )


def test_how_many_tokens_a_model_was_made_for(folder):
    assert max_positions("pixelis-nano") == 2048
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 77
    (folder / "config.json").write_text(json.dumps(config))
    assert max_positions(str(folder)) == 77
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError) as caught:
        max_positions(str(folder))
    assert one_line(caught).startswith(f"no model for '{folder}': ")


def text_model(folder):
    shutil.rmtree(folder)
    sizes = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def other_shapes(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["intermediate_size"] *= 2
    path.write_text(json.dumps(config))


def file_with(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("load", "harm"),
    [
        (load_model, empty),
        (load_model, text_model),
        (load_model, other_shapes),
        (load_model, file_with("model.safetensors", b"")),
        (load_model, file_with("model.safetensors", b"no tensors" * 9)),
        (load_model, file_with("config.json", b"{")),
        (load_model, file_with("config.json", b"{}")),
        (load_model, file_with("config.json", b'{"model_type": "of_the_future"}')),
        (load_processor, empty),
        (load_processor, file_with("tokenizer.json", b"")),
        (load_processor, file_with("tokenizer.json", b"{")),
        (load_processor, file_with("processor_config.json", b"")),
        (load_processor, file_with("processor_config.json", b"{")),
    ],
    ids=range(13),
)
def test_a_damaged_folder_is_an_error_of_one_line(folder, load, harm):
    harm(folder)
    with pytest.raises(CheckpointError) as caught:
        load(str(folder))
    what = "model" if load is load_model else "processor"
    assert one_line(caught).startswith(f"no {what} for '{folder}': ")


def test_a_published_name_needs_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = load_model_config_offline("Qwen/Qwen2.5-VL-7B-Instruct")
    assert (found.text_config.hidden_size, found.text_config.num_hidden_layers) == (3584, 28)


def test_a_folder_says_its_own_sizes(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(EMBEDDED_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model_config_offline(str(folder)).text_config.num_hidden_layers == 2
    assert load_model_config_offline("pixelis-nano").text_config.num_hidden_layers == 4


def test_an_unknown_configuration_is_an_error():
    with pytest.raises(CheckpointError, match="no configuration for 'nobody/nothing' on this mach"):
        load_model_config_offline("nobody/nothing")


# Where it computes


@pytest.mark.parametrize(
    ("num_gpus", "local_rank", "expected"),
    [(0, None, "cpu"), (1, None, "cuda:0"), (4, "2", "cuda:2"), (1, "2", "cuda:0")],
)
def test_the_gpu_of_the_process(monkeypatch, num_gpus, local_rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(best_device()) == expected


def test_a_module_is_there_for_a_while(monkeypatch):
    """With `meta`, which is not where it was, standing in for a GPU."""
    moved = []

    class Noted(torch.nn.Linear):
        def to(self, place):
            moved.append(str(place))
            return self

    monkeypatch.setattr(load_module, "best_device", lambda: torch.device("meta"))
    with pytest.raises(RuntimeError, match="broken"), on_best_device(Noted(2, 2)) as device:
        assert str(device) == "meta" and moved == ["meta"]
        raise RuntimeError("broken")
    assert moved == ["meta", "cpu"]
    monkeypatch.setattr(load_module, "best_device", lambda: torch.device("cpu"))
    with on_best_device(Noted(2, 2)) as device:
        assert str(device) == "cpu"
    assert moved == ["meta", "cpu"]


# In 4 bits; it is never computed with here, that needs a CUDA GPU


def test_what_is_asked_of_bitsandbytes(monkeypatch, published):
    asked = []

    def from_pretrained(path, **words):
        asked.append(words["quantization_config"])
        raise ValueError("enough")

    monkeypatch.setattr(load_module.AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    with pytest.raises(CheckpointError, match="enough"):
        load_model(NANO, load_in_4bit=True)
    settings = asked[0].to_dict()
    assert settings["load_in_4bit"] and settings["bnb_4bit_use_double_quant"]
    assert settings["bnb_4bit_quant_type"] == "nf4"
    assert settings["bnb_4bit_compute_dtype"] == "bfloat16"
    # Only the language model is quantised.
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(published["Qwen2.5-VL-7B"].config)
    converted = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and should_convert_module(name, settings["llm_int8_skip_modules"])
    }
    assert len(converted) == 28 * 7
    assert all(name.startswith("model.language_model.layers.") for name in converted)


def test_without_a_gpu_or_the_package(monkeypatch):
    def refused(message):
        with pytest.raises(ConfigError, match=f"^model.load_in_4bit {message}$"):
            check_model(ModelConfig(load_in_4bit=True))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("must not be true without a GPU that CUDA sees")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("true needs the package bitsandbytes")
