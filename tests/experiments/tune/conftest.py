import pytest

from pixelis.experiments.tune import Settings, build_space

DEFAULTS = {
    "curriculum.advancement_interval": 500,
    "curriculum.rollback_threshold": -0.05,
    "curriculum.enabled": True,
    "curriculum.strategy": "staged",
    "training.seed": 0,
    "curriculum.max_rollbacks": None,
    "data.path": "data",
}
FIXED = {"training.seed": "seeds are seeds_per_trial", "data.": "all see the same"}
SECTION = {
    "curriculum.advancement_interval": {"low": 10, "high": 100},
    "curriculum.rollback_threshold": {"low": -0.3, "high": -0.01},
}


@pytest.fixture
def space():
    return build_space(SECTION, DEFAULTS, FIXED)


@pytest.fixture
def settings():
    return Settings(sampler="tpe", seed=3, pruner="median", warmup=20, examples=100, num_trials=12)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"
