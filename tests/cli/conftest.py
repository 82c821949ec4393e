import json
import os
import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pixelis.config import DataPrepConfig
from pixelis.data.prepare import prepare_folder

ROOT = Path(__file__).parent.parent.parent

STAGES = [
    {"name": "simple", "difficulty_mix": {"simple": 1.0}},
    {"name": "balanced", "difficulty_mix": {"simple": 0.4, "medium": 0.4, "hard": 0.2}},
    {"name": "full", "difficulty_mix": {"simple": 0.2, "medium": 0.3, "hard": 0.5}},
]
# The smoke configuration, smaller still; whatever a test looks at is set here.
SETTINGS = {
    "training.learning_rate": 0.002,
    "training.logging_steps": 2,
    "curriculum.stages": json.dumps(STAGES),
    "curriculum.max_rollbacks": "null",
    "training.max_steps": 6,
    "training.batch_size": 2,
    "training.eval_steps": 3,
    "training.save_steps": 2,
    "training.max_length": 512,
    "curriculum.advancement_interval": 2,
    "curriculum.rollback_enabled": "false",
    "curriculum.eval_samples_per_difficulty": 2,
    "evaluation.enabled": "false",
    "model.lora_r": 4,
    "model.lora_dropout": 0.1,
}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A SQLite store with its tables: making them takes seconds, copying them does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store = SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "artifacts"))
    store.engine.dispose()
    return path


@pytest.fixture(scope="session")
def made_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "data"
    config = DataPrepConfig(
        num_samples=80,
        num_workers=1,
        tasks=("attribute_recognition", "text_extraction"),
        validation_fraction=0.2,
        test_fraction=0.2,
        self_correction_ratio=0.0,
    )
    prepare_folder(config, folder)
    return folder


@pytest.fixture
def place(empty_store, tmp_path, monkeypatch):
    """A working folder with a store of its own; everything that MLflow set is unset."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as store:
        # Experiments keep the artifact folder that they were made with: the template's.
        store.execute("UPDATE experiments SET artifact_location = ?", [str(folder / "artifacts")])
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mlflow.set_tracking_uri(None)
    yield folder
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def data(made_data, place):
    """Data that a test may harm."""
    shutil.copytree(made_data, place / "data")
    return place / "data"


@pytest.fixture
def client(place):
    return MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


@pytest.fixture
def runs(client):
    """All runs of the store; those of stage visits, nested in them, are left out."""

    def search():
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return [run for run in client.search_runs(ids) if "pixelis.visit" not in run.data.tags]

    return search


@pytest.fixture
def sft_arguments():
    """The command line of a training of seconds; later words win."""

    def build(*words, **changed):
        settings = SETTINGS | {"data.path": "data", "training.output_dir": "out"}
        settings |= {key.replace("__", "."): value for key, value in changed.items()}
        return [
            *("--config", str(ROOT / "configs/smoke/training_params.yaml")),
            *("--model", str(ROOT / "configs/model_arch.yaml")),
            *(word for key, value in settings.items() for word in (f"--{key}", str(value))),
            *words,
        ]

    return build


@pytest.fixture
def files_below():
    """Everything below a folder that an untouched one keeps.

    The store is looked into, not at; an empty lock file is no output.
    """

    def look(folder):
        found = {}
        for path in sorted(folder.rglob("*")):
            if not path.name.startswith("mlflow.db") and path.suffix != ".lock":
                facts = path.stat()
                found[path.relative_to(folder)] = facts.st_mtime_ns, path.is_file(), facts.st_size
        return found

    return look
