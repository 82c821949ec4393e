"""The plugin of MLflow: what opens a fresh SQLite store at once with others finds its tables."""

import os
import sqlite3
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store

from pixelis.mlflow_plugin import making_tables, open_sqlite, sqlite_file

OPEN = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"


def test_mlflow_opens_sqlite_stores_by_it():
    (found,) = entry_points(group="mlflow.tracking_store", name="sqlite")
    assert found.load() is open_sqlite


@pytest.mark.integration
def test_a_fresh_store_that_four_open_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    words = [sys.executable, "-c", OPEN, uri]
    opened = [
        subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [process.communicate(timeout=300)[1] for process in opened]
    assert [process.returncode for process in opened] == [0] * 4, said
    client = MlflowClient(uri)
    assert [each.name for each in client.search_experiments()] == ["Default"]


def test_a_store_is_opened_inside_of_the_lock_that_its_opener_has(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with making_tables(uri):
        assert _get_store(uri).search_experiments()


@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_a_fresh_store_has_the_mode_that_umask_gives(tmp_path, umask):
    file, before = tmp_path / "mlflow.db", os.umask(umask)
    try:
        with making_tables(f"sqlite:///{file}"), sqlite3.connect(file) as store:
            store.execute("CREATE TABLE runs (id)")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_only_files_are_locked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri in ("sqlite://", "postgresql://host/db", "http://host", "./mlruns"):
        assert sqlite_file(uri) is None
        with making_tables(uri):
            pass
    assert not list(tmp_path.iterdir())
