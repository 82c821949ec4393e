"""A real SQLite store for every test, in its working folder, as MLflow's default has it."""

import os
import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pixelis.tracking import delivery, open_run


@pytest.fixture
def client(empty_store, tmp_path, monkeypatch):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        # Experiments keep the artifact folder that they were made with: the template's.
        store.execute("UPDATE experiments SET artifact_location = ?", [str(tmp_path / "artifacts")])
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def no_thread_goes_on():
    """No delivery of one test sends, or warns, in the next one."""
    yield
    for each in list(delivery._alive):
        each.close(0)


WRITES = (
    *("log_batch", "log_artifact", "log_artifacts", "set_terminated", "log_inputs", "log_outputs"),
    *("set_tag", "get_run", "log_model_artifacts"),
)


@pytest.fixture
def outage(client, monkeypatch):
    """Call it with True: no call reaches the store until it is called with False."""
    is_away = [False]

    def wrap(real):
        def call(*args, **kwargs):
            if is_away[0]:
                raise ConnectionError("connection refused")
            return real(*args, **kwargs)

        return call

    for name in WRITES:
        monkeypatch.setattr(client, name, wrap(getattr(client, name)))

    def set_away(away):
        is_away[0] = away

    return set_away


@pytest.fixture
def history(client):
    """The (step, value) pairs that the store has of a metric of a run."""

    def get(run_id, key):
        return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]

    return get


@pytest.fixture
def artifact(client):
    """The text of an artifact of a run."""

    def read(run_id, name):
        return Path(client.download_artifacts(run_id, name)).read_text()

    return read


@pytest.fixture
def adapter(tmp_path):
    """A folder in PEFT's layout."""
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 32}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("what PEFT wrote")
    return folder


def opened(**changes):
    """A run of sft, opened as the entry points do."""
    settings = {"entry_point": "sft", "experiment": "pixelis", "run_name": "first", "tags": {}}
    return open_run(**settings | {"params": {}, "system_metrics": False} | changes)
