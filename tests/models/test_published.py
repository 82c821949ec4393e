"""Published sizes without a network."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForImageTextToText

from pixelis.errors import CheckpointError
from pixelis.models.families import PUBLISHED, published_config
from pixelis.models.load import EMBEDDED_DIR, load_model_config_offline


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_those_of_the_published_models(published, name):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(published_config(name))
    assert model.num_parameters() == published[name].num_parameters
    assert model.config.dtype == torch.bfloat16


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


def test_what_is_not_here_is_said_with_what_is_known():
    with pytest.raises(CheckpointError, match="no configuration for 'nobody/nothing' on this mach"):
        load_model_config_offline("nobody/nothing")
