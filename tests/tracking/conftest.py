"""A real SQLite store for every test, in its working folder, as MLflow's default has it."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient


@pytest.fixture
def client(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowClient]:
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


WRITES = (
    *("log_batch", "log_artifact", "log_artifacts", "set_terminated", "log_inputs", "log_outputs"),
    *("set_tag", "get_run", "log_model_artifacts"),
)


@pytest.fixture
def outage(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Call it with True: no call reaches the store until it is called with False."""
    is_away = [False]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if is_away[0]:
                raise ConnectionError("connection refused")
            return real(*args, **kwargs)

        return call

    for name in WRITES:
        monkeypatch.setattr(client, name, wrap(getattr(client, name)))

    def set_away(away: bool) -> None:
        is_away[0] = away

    return set_away


@pytest.fixture
def history(client: MlflowClient) -> Callable[[str, str], list[tuple[int, float]]]:
    """The (step, value) pairs that the store has of a metric of a run."""

    def get(run_id: str, key: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]

    return get


@pytest.fixture
def artifact(client: MlflowClient) -> Callable[[str, str], str]:
    """The text of an artifact of a run."""

    def read(run_id: str, name: str) -> str:
        return Path(client.download_artifacts(run_id, name)).read_text()

    return read
