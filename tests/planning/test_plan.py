"""Plans: what fits, and what to change."""

import pytest

from pixelis.config import ModelConfig, PlanFileConfig, TrainingConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.planning.plan import GIB, gpu_bytes, make_plan, overhead_bytes
from pixelis.planning.report import size, verdict

NANO = ModelConfig(torch_dtype="float32", gradient_checkpointing=False)
TRAINING = TrainingConfig(batch_size=8, gradient_accumulation_steps=2, max_length=1024)


def plan(memory_gib, *, model=NANO, training=TRAINING, **settings):
    config = TrainingFileConfig(training=training)
    config = config.replace(data=config.data.replace(path="nowhere"))
    keys = PlanFileConfig(gpu_memory_gib=memory_gib, **settings)
    return make_plan(config, model, CurriculumConfig(), keys)


def test_what_fits_needs_no_advice():
    result = plan(24.0)
    assert result.fits and result.advice == []
    assert verdict(result) == f"fits: {size(result.total)} of 24.00 GiB on each GPU"
    assert result.total == result.memory.total + overhead_bytes(result.memory.total)
    assert (result.trainable, result.targets["mlp.up_proj"]) == (442_368, 4)
    assert (result.examples_per_step, result.hours, result.tokens_known) == (16, None, False)


def test_advice_goes_on_until_it_fits_and_each_line_saves():
    need = plan(24.0).total
    result = plan((need - 0.1 * 2**30) / GIB)
    assert not result.fits and result.advice[-1].fits
    assert [one.fits for one in result.advice[:-1]] == [False] * (len(result.advice) - 1)
    assert result.advice[0].change.startswith("model.gradient_checkpointing=true")
    totals = [result.total, *(one.total for one in result.advice)]
    assert totals == sorted(totals, reverse=True)
    assert verdict(result).endswith("with the changes above it does")


def test_what_never_fits_says_so():
    result = plan(0.5)  # less than a CUDA context
    assert not any(one.fits for one in result.advice)
    changes = " ".join(one.change for one in result.advice)
    for key in ("batch_size=1 ", "max_pixels", "max_length", "load_in_4bit"):
        assert key in changes
    assert "nor with the changes above" in verdict(result)


def test_several_gpus_share_the_steps_and_the_time():
    one = plan(24.0, tokens_per_second=1000.0)
    two = plan(24.0, tokens_per_second=1000.0, num_gpus=2)
    assert two.examples_per_step == 2 * one.examples_per_step
    assert one.hours == two.hours == pytest.approx(1024 * 16 * 10000 / 1000 / 3600)
    assert two.memory.gradients == 2 * one.memory.gradients  # what they exchange


def test_sharding_divides_the_weights():
    whole, sharded = (plan(24.0, num_gpus=4, sharded=value) for value in (False, True))
    assert sharded.num_gpus == 4
    assert sharded.memory.optimizer == whole.memory.optimizer // 4
    assert sharded.memory.weights < whole.memory.weights


def test_one_gpu_cannot_be_sharded():
    with pytest.raises(ConfigError, match="^sharded is for several GPUs: set num_gpus"):
        plan(24.0, sharded=True)


def test_gpus_by_name():
    assert gpu_bytes("A10G", None) == 22 * GIB
    assert gpu_bytes("whatever", 11.5) == 11.5 * GIB
    with pytest.raises(ConfigError, match="^gpu must be one of RTX-4090, .*, got 'A10'; for anoth"):
        gpu_bytes("A10", None)
