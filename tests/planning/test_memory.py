"""Forecasts of memory, compared with a real training and with the known sizes of the 7B."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelis.config import DataPrepConfig, ModelConfig
from pixelis.data_prep.prepare import prepare_folder
from pixelis.models.load import load_model_config_offline
from pixelis.planning.memory import LiveBytes, Shape, build_fake_model, forecast_memory
from tests.planning.measured_memory import measure_apart

SEVEN = ModelConfig(model_name="Qwen/Qwen2.5-VL-7B-Instruct", torch_dtype="bfloat16")
NANO = ModelConfig(torch_dtype="float32", gradient_checkpointing=False)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planning") / "data"
    prepare_folder(DataPrepConfig(num_samples=60, num_workers=1), folder)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize(
    ("batch_size", "checkpointing", "precision"),
    [(4, False, "fp32"), (8, True, "fp32"), (8, False, "bf16")],
)
def test_a_training_of_the_embedded_base_takes_what_is_forecast(
    data_dir, batch_size, checkpointing, precision
):
    """Within 15 % above the base's weights, and with them; by torch's profiler."""
    model = {"gradient_checkpointing": checkpointing}
    training = {"batch_size": batch_size, "precision": precision}
    found = measure_apart(model, training, data_dir)
    assert found["forecast_above_base"] == pytest.approx(found["measured_above_base"], rel=0.15)
    assert found["forecast"] == pytest.approx(found["measured"], rel=0.15)
    assert found["forecast_weights"] == pytest.approx(found["weights"], rel=0.001)
    assert sum(found["parts"].values()) == found["forecast"]
    assert found["measured_above_base"] > 4 * found["parts"]["adapter"]  # something was measured


@pytest.fixture(scope="module")
def seven():
    return build_fake_model(load_model_config_offline(SEVEN.model_name), SEVEN, precision="bf16")


def forecast(adapted, model=SEVEN, **changed):
    shape = Shape(batch_size=2, length=1024, supervised=400, image_tokens=1000)
    return forecast_memory(adapted, replace(shape, **changed), model, bf16=True)


def test_the_parts_of_the_7b(seven):
    found = forecast(seven)
    trained = sum(p.numel() for p in seven.parameters() if p.requires_grad)
    assert trained == 80_740_352
    assert found.adapter == found.gradients == 4 * trained
    assert found.optimizer == 8 * trained
    assert found.weights == pytest.approx(2 * 8_292_166_656, rel=0.001)
    # A checkpointed layer keeps its input alone: 28 of (2, 1024, 3584) in bf16; and autocast keeps
    # the adapter in bf16.
    assert found.activations == pytest.approx(28 * 2 * 1024 * 3584 * 2 + 2 * trained, rel=0.1)
    # Nothing is left on it.
    assert all(p.grad is None for p in seven.parameters())


@pytest.mark.slow
def test_what_takes_more_and_what_saves(seven):
    base = forecast(seven)
    plain = forecast(seven, SEVEN.replace(gradient_checkpointing=False))
    assert plain.activations > 10 * base.activations
    assert forecast(seven, batch_size=4, supervised=800).total > base.total
    four = forecast(seven, SEVEN.replace(load_in_4bit=True))
    # Half a byte of two for the language model's layers; tower, embeddings and head as they are.
    assert four.weights == pytest.approx(0.42 * base.weights, rel=0.05)
    features = forecast(seven, runs_tower=False)
    assert features.inputs < base.inputs
    # Logits of 1,000 more tokens: (1000, 152064) in bf16 and fp32, and their softmax.
    more = forecast(seven, supervised=1400)
    assert more.total - base.total > 1000 * 152064 * 8


def test_an_adapted_tower_keeps_activations_too():
    adapted = build_fake_model(
        load_model_config_offline("pixelis-nano"), NANO.replace(train_vision=True), precision="fp32"
    )
    frozen = build_fake_model(load_model_config_offline("pixelis-nano"), NANO, precision="fp32")
    shape = Shape(batch_size=2, length=200, supervised=60, image_tokens=128)
    one, other = (forecast_memory(m, shape, NANO, bf16=False) for m in (adapted, frozen))
    assert one.activations > 1.2 * other.activations
    assert one.adapter > other.adapter


def test_live_bytes_follow_tensors_views_and_the_graph_of_backward():
    with FakeTensorMode(), LiveBytes() as live:
        first = torch.empty(1024, dtype=torch.uint8)
        view = first.view(2, -1)
        assert live.live == 1024  # a view has no bytes of its own
        second = torch.empty(3 * 1024, dtype=torch.uint8)
        del first
        assert live.live == 4 * 1024
        del view, second
        assert (live.live, live.peak) == (0, 4 * 1024)
        weight = torch.empty(64, 64, requires_grad=True)
        before = live.live
        loss = (weight @ weight).exp().sum()
        assert live.live == before + 64 * 64 * 4 + 4  # the result of exp, and the sum
        loss.backward()
        del loss
        assert live.live == before + 64 * 64 * 4  # the gradient
