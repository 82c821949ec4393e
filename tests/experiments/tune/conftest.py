import pytest

from pixelis.experiments.tune.sampling import SearchSettings
from pixelis.experiments.tune.space import build_space
from pixelis.experiments.tune.study import open_study
from tests.experiments.tune.worker import DEFAULTS, FIXED, SECTION


@pytest.fixture
def space():
    return build_space(SECTION, DEFAULTS, FIXED)


@pytest.fixture
def settings():
    return SearchSettings("tpe", seed=3, pruner="median", warmup=20, examples=100, num_trials=12)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def search(url, space, settings):
    return open_study(url, "search", settings, space=space, identity={"a": 1})
