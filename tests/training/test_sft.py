"""One training from its configuration: what it leaves, and what it refuses."""

import json
import re
import shutil
import signal

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pixelis.curriculum import CurriculumConfig
from pixelis.data.store import difficulty_file, write_rows
from pixelis.errors import CheckpointError, ConfigError, DataError, UserError
from pixelis.models.load import load_model
from pixelis.models.lora import load_adapter
from pixelis.training.stopping import Stopped


def test_what_a_training_leaves(whole):
    names = {path.name for path in whole.output_dir.iterdir()}
    assert names == {"checkpoint-6", "checkpoint-8", "best", "final", "visits", "events.json"}
    for name in ("best", "final"):
        folder = whole.output_dir / name
        model = load_model("pixelis-nano", torch_dtype="float32")
        load_adapter(model, folder, model_name="pixelis-nano")
        # Nothing that names this machine.
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "pixelis-nano"


def test_the_result_says_what_was_done(train, advancing):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    result, recorder, _ = train(advancing, max_steps=4)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert [step for step, _ in result.evaluations] == [2, 4]
    assert result.losses == [(s, recorder.values["train/loss", s]) for s in (2, 3, 4)]
    last = CurriculumConfig.from_dict(advancing).stages[-1].difficulty_mix
    performances = {
        step: sum(part * strata[name] for name, part in last.items())
        for step, strata in result.evaluations
    }
    assert result.best["performance"] == pytest.approx(max(performances.values()))
    assert performances[result.best["step"]] == pytest.approx(max(performances.values()))
    assert not result.model.training
    saved = json.loads((result.final_dir.parent / "events.json").read_text())
    assert saved == [e.to_dict() for e in result.events] == recorder.events
    assert "Final stage: balanced" in result.statistics
    assert "Total samples used: 16" in result.statistics

    # Only the adapter has learned.
    before = load_model("pixelis-nano", torch_dtype="float32").state_dict()
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in result.model.state_dict().items()
        if "lora_" not in name
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    weights = load_file(result.final_dir / "adapter_model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)


def test_a_stop_says_where_to_go_on(tmp_path):
    stopped = Stopped(tmp_path / "checkpoint-5", 5)
    assert isinstance(stopped, KeyboardInterrupt)
    assert str(stopped) == f"stopped after step 5; everything is in {tmp_path / 'checkpoint-5'}"


def test_the_whole_model_is_not_trained(train, advancing, tmp_path):
    expected = "model.use_lora must be true, got false (only the adapter is trained and saved)"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        train(advancing, model={"use_lora": False})
    assert not (tmp_path / "sft").exists()


def test_a_training_that_diverges_ends_and_says_so(train, advancing, tmp_path):
    with pytest.raises(UserError) as caught:
        train(advancing, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    assert str(caught.value) == (
        "training diverged: after step 2 the validation loss of simple is nan; "
        "lower training.learning_rate or training.max_grad_norm"
    )
    assert not (tmp_path / "sft" / "final").exists()


def test_a_training_that_diverges_where_examples_are_scored_says_so_too(train, advancing):
    paced = advancing | {"strategy": "self_paced"}
    with pytest.raises(UserError) as caught:
        train(paced, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    pattern = r"training diverged: after step 2 the loss of \w+ example \d+ is nan; lower .*"
    assert re.fullmatch(pattern, str(caught.value)), caught.value


def test_a_base_that_is_not_there(train, advancing, tmp_path):
    place = str(tmp_path / "no-model")
    with pytest.raises(CheckpointError, match=f"no model folder {place}; "):
        train(advancing, model={"model_name": place})


def test_an_example_that_is_too_long_is_named(train, advancing):
    with pytest.raises(DataError) as caught:
        train(advancing, max_length=100)
    pattern = r"example \S+ \(\w+\): \d+ tokens, more than max_length 100; raise training\.m\w+"
    assert re.fullmatch(pattern, str(caught.value)), caught.value


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_met_in_training_is_named(
    train, advancing, data_dir, tmp_path, capsys, num_workers
):
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    path = folder / difficulty_file("simple")
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        if row["split"] == "train":
            row["images"][0]["bytes"] = b"no image"
    write_rows(rows, path)
    with pytest.raises(DataError, match=r"^example \S+: an image does not open \([^\n]*\)$"):
        train(advancing, data=folder, num_workers=num_workers)
    # The bar has ended its line: the message gets one of its own.
    shown = capsys.readouterr().err
    assert " 0/8 " in shown and shown.endswith("]\n")
