"""export as a user meets it."""

import json
from pathlib import Path

import pytest
import torch

from pixelis.cli.arguments import run_cli
from pixelis.cli.evaluate import main as evaluate
from pixelis.cli.export import main
from pixelis.config import ModelConfig
from pixelis.models.load import load_model
from pixelis.models.lora import add_lora

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
MODEL = ("--model", str(ROOT / "configs/model_arch.yaml"))


def arguments(*words):
    return [*("--config", str(ROOT / "configs/export.yaml")), *MODEL, *words]


@pytest.fixture
def adapter(workdir):
    base = load_model("pixelis-nano", torch_dtype="float32")
    names = {"model_name": "pixelis-nano", "lora_r": 4, "lora_alpha": 8}
    model = add_lora(base, ModelConfig(**names, lora_dropout=0.0), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(str(workdir / "adapter"), save_embedding_layers=False)
    return workdir / "adapter"


def test_it_saves_compares_tells_and_records(data, adapter, client, runs, capfd):
    words = ("--adapter", "adapter", "--output_dir", "merged", "--data.path", "data")
    assert run_cli(main, arguments(*words, "--save_dtype", "float32")) == 0
    out = capfd.readouterr().out
    assert "logits are compared on example " in out and "of the test split of data" in out
    assert "before and after merging (fp32): at most " in out
    assert "AutoModelForImageTextToText.from_pretrained('merged', dtype='auto')" in out
    about = json.loads(Path("merged/pixelis_export.json").read_text())
    (run,) = runs()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "export adapter")
    assert run.data.tags["pixelis.adapter"] == "adapter"
    assert run.data.metrics["export/merging"] == about["merging"] <= 1e-3
    assert run.data.params["save_dtype"] == "float32"
    kept = client.download_artifacts(run.info.run_id, "export/pixelis_export.json")
    assert json.loads(Path(kept).read_text()) == about
    Path("new").touch()
    modes = {path.name: path.stat().st_mode for path in Path("merged").iterdir()}
    assert set(modes.values()) == {Path("new").stat().st_mode} and "model.safetensors" in modes


def test_the_folder_is_a_model_for_the_other_entry_points(data, adapter, capfd, runs):
    words = ("--adapter", "adapter", "--output_dir", "merged", "--save_dtype", "float32")
    assert run_cli(main, arguments(*words)) == 0
    assert "a drawn scene (data/cota is not there)" in capfd.readouterr().out
    folder = Path("merged").resolve()
    base = load_model(str(folder), torch_dtype="float32")
    names = {"model_name": str(folder), "lora_r": 4, "lora_alpha": 8}
    add_lora(base, ModelConfig(**names, lora_dropout=0.0), seed=0).save_pretrained(
        "second", save_embedding_layers=False
    )
    code = run_cli(
        evaluate,
        [
            *("--config", str(ROOT / "configs/evaluate.yaml"), *MODEL),
            *("--model.model_name", str(folder), "--adapter", "second", "--data.path", "data"),
            *("--samples_per_difficulty", "1", "--max_operations", "1", "--max_new_tokens", "8"),
            *("--teacher_forced", "false"),
        ],
    )
    assert code == 0, capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output_dir", "adapter"), "output_dir must not be there yet, got adapter; name anoth"),
        (("--adapter", "nowhere"), "the adapter nowhere is not a folder"),
        (("--model.model_name", "./none"), "the adapter in adapter is for the base 'pixelis-nano'"),
        (("--tolerance", "1e-12"), "merged into its base, the adapter says something else: "),
    ],
)
def test_what_it_refuses_is_one_line(adapter, capfd, words, message):
    given = ("--adapter", "adapter", "--output_dir", "merged")
    assert run_cli(main, arguments(*given, *words)) == 2
    assert f"error: {message}" in capfd.readouterr().err
    assert not Path("merged").exists()


def test_without_an_address_the_newest_training_is_looked_for(workdir, capfd):
    assert run_cli(main, arguments("--output_dir", "merged")) == 2
    assert "error: no finished sft run in the experiment 'sft_curriculum'" in capfd.readouterr().err


def test_a_folder_in_the_home_of_nobody_is_one_line(data, adapter, runs, capfd):
    words = ("--adapter", "adapter", "--output_dir", "~nosuchuser/x")
    assert run_cli(main, arguments(*words)) == 2
    said = capfd.readouterr().err.splitlines()
    assert said == ["error: '~nosuchuser/x' is in a home folder that is not known here"]
    assert runs() == []
