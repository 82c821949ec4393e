"""Trainings in bf16: an fp32 adapter, much the same numbers, and as exact as in fp32."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from pixelis.models.load import load_model
from pixelis.models.lora import load_adapter
from pixelis.training.checkpoint import ADAPTER_FILE

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # real trainings: two minutes a file

IDS = torch.arange(5, 45)[None]


@pytest.fixture(scope="module")
def whole(fork_run, advancing, tmp_path_factory):
    """A training in bf16 that nobody interrupted."""
    return fork_run(tmp_path_factory.mktemp("half") / "sft", advancing, precision="bf16")


def test_killed_and_resumed_it_is_the_same_training(fork_run, whole, advancing, tmp_path):
    place = tmp_path / "sft"
    killed = {"fault": ("record", 5, "SIGKILL"), "code": -signal.SIGKILL}
    fork_run(place, advancing, precision="bf16", **killed)
    run = fork_run(place, advancing, precision="bf16", resume="auto")
    assert f"going on from {place / 'checkpoint-3'} (step 3)" in run.lines
    assert run.adapter == whole.adapter
    assert run.events == whole.events
    assert run.metrics == whole.metrics


def test_adapter_and_moments_are_fp32(whole):
    adapter = load_file(whole.output_dir / "final" / ADAPTER_FILE)
    state = torch.load(whole.output_dir / "checkpoint-8" / "optimizer.pt", weights_only=True)
    moments = [value for by in state["state"].values() for value in by.values()]
    for tensors in (adapter.values(), moments):
        assert {value.dtype for value in tensors} == {torch.float32}


def test_the_numbers_are_those_of_fp32_but_for_rounding(train, advancing, tmp_path):
    found = {}
    for precision in ("fp32", "bf16"):
        _, recorder, _ = train(
            advancing, precision=precision, max_steps=4, output_dir=tmp_path / precision,
            logging_steps=1, model={"lora_dropout": 0.0},
        )  # fmt: skip
        found[precision] = {
            (key, step): value
            for (key, step), value in recorder.values.items()
            if key in ("train/loss", "eval/simple/loss", "eval/hard/loss")
        }
    assert len(found["fp32"]) == 8
    # bf16 has 8 bits: its rounding, 1/256, hardly adds up in means over hundreds of tokens.
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.01, abs=1e-3)
    assert found["bf16"] != found["fp32"]


def test_rollouts_are_made_by_the_base_as_it_is(train, advancing):
    result, _, _ = train(advancing, precision="bf16", max_steps=2)
    base = load_model("pixelis-nano", torch_dtype="float32")
    with torch.inference_mode():
        expected = base(input_ids=IDS).logits
        with result.model.disable_adapter():
            assert torch.equal(result.model(input_ids=IDS).logits, expected)
        adapted = load_adapter(base, result.final_dir, model_name="pixelis-nano").eval()
        found = result.model(input_ids=IDS).logits
        assert torch.equal(found, adapted(input_ids=IDS).logits)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
