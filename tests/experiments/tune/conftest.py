import pytest

from pixelis.experiments.tune.study import open_study
from tests.experiments.tune.worker import build_spec


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def make(url, tmp_path):
    """Builds a search's specification with other settings."""
    return lambda *pairs, **changed: build_spec(url, tmp_path, pairs, **changed)


@pytest.fixture
def search(make):
    return open_study(make())
