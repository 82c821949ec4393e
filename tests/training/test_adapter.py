"""Every kind of adapter, trained: the base stays as it is, and a stop changes nothing."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from pixelis.config import ModelConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.models.load import load_model
from pixelis.training.adapter import RANKS_FILE, build_adapter, load_base
from pixelis.training.caches import load_data
from tests.training.conftest import ADVANCING

pytestmark = pytest.mark.integration

IDS = torch.arange(5, 45)[None]
KINDS = {
    "gaussian": {"init_lora_weights": "gaussian"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "eva": {"init_lora_weights": "eva", "lora_auto_examples": 12},
    "auto": {"lora_r": "auto", "lora_auto_rank": 4, "lora_auto_examples": 12},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "olora with dora": {"init_lora_weights": "olora", "use_dora": True},
}
SHORT = {"max_steps": 4, "save_steps": 2, "batch_size": 1, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_adapter_is_what_was_trained(kind, train, tmp_path):
    result, _, _ = train(ADVANCING, model=KINDS[kind], **SHORT)
    base = load_model("pixelis-nano", torch_dtype="float32")
    with torch.no_grad():
        before = base(input_ids=IDS).logits
        loaded = PeftModel.from_pretrained(base, str(result.final_dir)).eval()
        after = loaded(input_ids=IDS).logits
        assert not torch.allclose(after, before, atol=1e-3)
        # For the rollouts of both, whatever was taken from the base in training.
        torch.testing.assert_close(result.model(input_ids=IDS).logits, after, atol=1e-5, rtol=0)
        with result.model.disable_adapter():
            assert torch.equal(result.model(input_ids=IDS).logits, before)


@pytest.mark.parametrize("kind", ["auto", "pissa", "olora with dora"])
def test_stopped_and_taken_up_it_is_the_same_training(kind, train, tmp_path):
    whole, _, _ = train(ADVANCING, model=KINDS[kind], **SHORT)
    again, _, _ = train(
        ADVANCING,
        model=KINDS[kind],
        output_dir=tmp_path / "again",
        resume_from=tmp_path / "sft" / "checkpoint-2",
        **SHORT,
    )
    first, second = (
        load_file(result.final_dir / "adapter_model.safetensors") for result in (whole, again)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], value) for name, value in second.items())
    configs = [
        json.loads((result.final_dir / "adapter_config.json").read_text())
        for result in (whole, again)
    ]
    assert configs[0] == configs[1]


def test_ranks_and_spectra_are_left_behind(data_dir, train, tmp_path):
    train(ADVANCING, model=KINDS["auto"], **SHORT)
    rows = json.loads((tmp_path / "sft" / RANKS_FILE).read_text())
    saved = json.loads((tmp_path / "sft/final/adapter_config.json").read_text())
    found = {row["layer"]: row["rank"] for row in rows}
    assert sum(found.values()) == 4 * len(rows)
    other = {layer: rank for layer, rank in found.items() if rank != saved["r"] and rank}
    assert saved["rank_pattern"] == other != {}
    # EVA's directions are of no use to who loads it.
    assert (saved["init_lora_weights"], saved["eva_config"]) == (True, None)
    for name in ("lora_ranks.html", "lora_spectra.html"):
        assert "plotly" in (tmp_path / "sft" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"lora_r": "auto", "lora_auto_rank": 64},
            r"the largest rank that EVA may give must be <= 96 for this model, got 128 ",
        ),
        (
            {"lora_r": "auto", "lora_auto_rank": 40, "lora_auto_examples": 1},
            r"model.lora_auto_examples must give 160 supervised tokens, got 1 examples with fewer",
        ),
    ],
)
def test_what_eva_cannot_do(changed, message, train):
    with pytest.raises(ConfigError, match=f"^{message}"):
        train(ADVANCING, model=changed, **SHORT)


def test_figures_are_told_to_the_recorder(data_dir, tmp_path):
    config = ModelConfig(torch_dtype="float32", max_pixels=12544, **KINDS["auto"])
    _, datasets = load_data(config, data_dir, CurriculumConfig.from_dict(ADVANCING), 512)

    class Told:
        def __init__(self):
            self.figures, self.files = [], []

        def figure(self, name, figure):
            self.figures.append(name)

        def artifact(self, path, folder=""):
            self.files.append((folder, path.name))

    told = Told()
    build_adapter(
        config,
        datasets["train"],
        lambda: load_base(config),
        seed=0,
        batch_size=2,
        output_dir=tmp_path,
        recorder=told,
    )
    assert told.figures == ["lora/ranks.png", "lora/spectra.png"]
    assert told.files == [
        ("lora", name) for name in (RANKS_FILE, "lora_ranks.html", "lora_spectra.html")
    ]
