"""Trainings that share a cache: each is to the bit what it would have been alone."""

import pytest

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.training.caches import TrainingCache
from tests.training.conftest import MODEL, TRAINING

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # real trainings: two minutes a file

STAYING = {
    "advancement_interval": 2,
    "min_performance_for_advance": 0.0,
    "rollback_enabled": False,
    "eval_samples_per_difficulty": 2,
}
SHORT = {"max_steps": 3, "save_steps": 3, "eval_steps": 3, "batch_size": 1}
USUAL = {"model": {"lora_dropout": 0.1}}
WIDER = {"model": {"lora_dropout": 0.1, "lora_r": 8}, "seed": 1}
SEEING = {"model": {"lora_dropout": 0.1, "train_vision": True}}
PISSA = {"model": {"lora_dropout": 0.1, "init_lora_weights": "pissa"}}
CHECKPOINTING = {"model": {"lora_dropout": 0.1, "gradient_checkpointing": True}}
HALF = {**USUAL, "precision": "bf16"}
IMAGES = {**USUAL, "vision_cache": "off"}


@pytest.fixture
def adapters(train, tmp_path):
    """The bytes of the adapter that each training left, with a cache or each on its own."""
    made = []

    def run(settings, cache=None):
        found = []
        for one in settings:
            made.append(tmp_path / str(len(made)))
            words = {**SHORT, **one, "output_dir": made[-1]}
            result, _, _ = train(STAYING, cache=cache, **words)
            found.append((result.final_dir / "adapter_model.safetensors").read_bytes())
        return found

    return run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_trainings_with_one_cache_are_two_trainings(adapters, precision):
    both = [{**USUAL, "precision": precision}, {**WIDER, "precision": precision}]
    alone = adapters(both)
    assert alone[0] != alone[1]
    # A third one shows what the second has left.
    assert adapters([*both, both[0]], TrainingCache()) == [*alone, alone[0]]


@pytest.mark.parametrize(
    "other",
    [PISSA, SEEING, HALF, IMAGES, CHECKPOINTING],
    ids=["takes from the base", "trains the tower", "bf16", "images", "checkpointing"],
)
def test_trainings_of_two_kinds_do_not_harm_each_other(adapters, other):
    usual, changed = adapters([USUAL, other])
    assert usual != changed or other is CHECKPOINTING
    assert adapters([other, USUAL, other], TrainingCache()) == [changed, usual, changed]


def test_a_training_that_failed_before_it_began_leaves_no_adapter_behind(adapters, train, tmp_path):
    cache = TrainingCache()
    first = adapters([USUAL], cache)
    too_few = {"lora_r": "auto", "lora_auto_rank": 40, "lora_auto_examples": 1}
    with pytest.raises(ConfigError, match="lora_auto_examples must give 160 supervised tokens"):
        train(STAYING, model=too_few, cache=cache, output_dir=tmp_path / "fails", **SHORT)
    assert adapters([USUAL], cache) == first


def test_the_base_and_the_data_are_loaded_once(adapters, monkeypatch):
    loaded = []
    load = "pixelis.training.caches.load_base"
    from pixelis.training.adapter import load_base

    monkeypatch.setattr(load, lambda model: loaded.append(model) or load_base(model))
    adapters([USUAL, WIDER, IMAGES], TrainingCache())
    assert len(loaded) == 1
    loaded.clear()
    adapters([HALF, {**HALF, "seed": 1}], TrainingCache())
    assert len(loaded) == 1  # the tower's features are known: nobody needs the unrounded base


def test_what_is_prepared_is_what_the_first_training_takes(adapters, data_dir, monkeypatch):
    alone = adapters([USUAL])
    loaded, bench = [], TrainingCache()
    from pixelis.training.adapter import load_base

    load = "pixelis.training.caches.load_base"
    monkeypatch.setattr(load, lambda model: loaded.append(model) or load_base(model))
    bench.prepare(
        ModelConfig(**(MODEL | USUAL["model"])),
        data_dir,
        CurriculumConfig.from_dict(STAYING),
        TrainingConfig(**(TRAINING | SHORT)),
    )
    assert adapters([USUAL], bench) == alone
    assert len(loaded) == 1
