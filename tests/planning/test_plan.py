"""Plans: what fits, and what to change."""

import pytest

from pixelis.config import ModelConfig, PlanFileConfig, TrainingConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.planning.gpus import GIB, beside_tensors, gpu_bytes
from pixelis.planning.plan import make_plan
from pixelis.planning.report import size, verdict

NANO = ModelConfig(torch_dtype="float32", gradient_checkpointing=False)
TRAINING = TrainingConfig(batch_size=8, gradient_accumulation_steps=2, max_length=1024)


def plan(memory_gib, *, model=NANO, training=TRAINING, **words):
    config = TrainingFileConfig(training=training)
    config = config.replace(data=config.data.replace(path="nowhere"))
    keys = PlanFileConfig(gpu_memory_gib=memory_gib, **words)
    return make_plan(config, model, CurriculumConfig(), keys)


def test_what_fits_needs_no_advice():
    found = plan(24.0)
    assert found.fits and found.advice == []
    assert verdict(found) == f"fits: {size(found.total)} of 24.00 GiB on each GPU"
    assert found.total == found.memory.total + beside_tensors(found.memory.total)
    assert (found.trainable, found.targets["mlp.up_proj"]) == (442_368, 4)
    assert (found.examples_per_step, found.hours, found.tokens_known) == (16, None, False)


def test_advice_goes_on_until_it_fits_and_each_line_saves():
    need = plan(24.0).total
    found = plan((need - 0.1 * 2**30) / GIB)
    assert not found.fits and found.advice[-1].fits
    assert [one.fits for one in found.advice[:-1]] == [False] * (len(found.advice) - 1)
    assert found.advice[0].change.startswith("model.gradient_checkpointing=true")
    totals = [found.total, *(one.total for one in found.advice)]
    assert totals == sorted(totals, reverse=True)
    assert verdict(found).endswith("with the changes above it does")


def test_what_never_fits_says_so():
    found = plan(0.5)  # less than a CUDA context
    assert not any(one.fits for one in found.advice)
    changes = " ".join(one.change for one in found.advice)
    for key in ("batch_size=1 ", "max_pixels", "max_length", "load_in_4bit"):
        assert key in changes
    assert "nor with the changes above" in verdict(found)


def test_several_gpus_share_the_steps_and_the_time():
    one = plan(24.0, tokens_per_second=1000.0)
    two = plan(24.0, tokens_per_second=1000.0, num_gpus=2)
    assert two.examples_per_step == 2 * one.examples_per_step
    assert one.hours == two.hours == pytest.approx(1024 * 16 * 10000 / 1000 / 3600)
    assert two.memory.gradients == 2 * one.memory.gradients  # what they exchange


def test_a_sharded_base_takes_a_part_of_its_weights(tmp_path):
    file = tmp_path / "fsdp.yaml"
    file.write_text("distributed_type: FSDP\n")
    config = TrainingFileConfig(training=TRAINING, accelerate_config=str(file), num_processes=4)
    config = config.replace(data=config.data.replace(path="nowhere"))
    keys = PlanFileConfig()
    found = make_plan(config, NANO, CurriculumConfig(), keys)
    alone = make_plan(config.replace(accelerate_config=None), NANO, CurriculumConfig(), keys)
    assert found.num_gpus == 4
    assert found.memory.optimizer == alone.memory.optimizer // 4
    assert found.memory.weights < alone.memory.weights


def test_one_gpu_shares_nothing():
    config = TrainingFileConfig(accelerate_config="configs/accelerate/fsdp.yaml")
    with pytest.raises(ConfigError, match="^accelerate_config is for several processes: set num_"):
        make_plan(config, NANO, CurriculumConfig(), PlanFileConfig())


def test_gpus_by_name():
    assert gpu_bytes("A10G", None) == 22 * GIB
    assert gpu_bytes("whatever", 11.5) == 11.5 * GIB
    with pytest.raises(ConfigError, match="^gpu must be one of RTX-4090, .*, got 'A10'; for anoth"):
        gpu_bytes("A10", None)
