"""A real SQLite store for every test: made once (that takes seconds), then copied."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    root = path.parent / "artifacts"
    store = SqlAlchemyStore(f"sqlite:///{path}", str(root))
    store.engine.dispose()
    return path


@pytest.fixture
def client(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowClient]:
    """A client of a store of its own, in the working folder, as MLflow's default has it."""
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
