"""A base in 4 bits: what is asked of bitsandbytes, and what is said where it cannot run.

It is never computed with here: that needs a CUDA GPU.
"""

import importlib.util

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.quantizers.quantizers_utils import should_convert_module

from pixelis.config import ModelConfig
from pixelis.errors import ConfigError
from pixelis.models.load import load_model
from pixelis.models.quantization import check_quantization, quantization_config
from pixelis.training.inputs import check_model


def test_what_is_asked_for():
    asked = quantization_config(torch.bfloat16).to_dict()
    assert asked["load_in_4bit"] and not asked["load_in_8bit"]
    assert asked["bnb_4bit_quant_type"] == "nf4"
    assert asked["bnb_4bit_use_double_quant"] is True
    assert asked["bnb_4bit_compute_dtype"] == "bfloat16"


def test_only_the_language_model_is_quantised(published):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(published["Qwen2.5-VL-7B"].config)
    skipped = quantization_config(torch.bfloat16).llm_int8_skip_modules
    converted = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and should_convert_module(name, skipped)
    }
    assert len(converted) == 28 * 7
    assert all(name.startswith("model.language_model.layers.") for name in converted)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    message = r"^model.load_in_4bit must be false here, got true \(it needs a CUDA GPU\)$"
    for refuse in (
        check_quantization,
        lambda: load_model("pixelis-nano", load_in_4bit=True),
        lambda: check_model(ModelConfig(load_in_4bit=True)),
    ):
        with pytest.raises(ConfigError, match=message):
            refuse()


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"
)
def test_without_the_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[quantization\]'$"):
        check_quantization()
