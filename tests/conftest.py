"""Fixtures that tests of several folders share. Heavy imports stand inside of fixtures."""

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# How long a case takes says more about the machine's other work than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Files of minutes, longest first: begun first, so that no process is left with one at the end while
# the other has nothing to do (`--dist loadfile --no-loadscope-reorder`).
LONGEST = [
    f"{name}.py"
    for name in (
        "faults/test_long_training faults/test_kills_tune experiments/tune/test_machines "
        "test_end_to_end cli/test_tune cli/test_sft training/test_batch_size planning/test_memory "
        "cli/test_ablate cli/test_evaluate training/test_processes data_prep/test_ten_thousand "
        "cli/test_kills runs/test_champion cli/test_plan models/test_export"
    ).split()
]

ROOT = Path(__file__).parent.parent

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

TEMPLATE = ROOT / "recipes" / "nano" / "chat_template.jinja"
EXAMPLES_PER_KIND = 40


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0][6:], len(rank)))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A SQLite store with its tables: making them takes seconds, copying them does not."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store = SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "artifacts"))
    store.engine.dispose()
    return path


@pytest.fixture(scope="session")
def made_data(tmp_path_factory):
    from tests.small_data import make_small_data

    folder = tmp_path_factory.mktemp("cli") / "data"
    return make_small_data(folder, num_samples=80)


@pytest.fixture
def workdir(empty_store, tmp_path, monkeypatch):
    """A working folder with a store of its own; everything that MLflow set is unset."""
    import mlflow

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
def data(made_data, workdir):
    """Data that a test may harm."""
    shutil.copytree(made_data, workdir / "data")
    return workdir / "data"


@pytest.fixture
def hard_data(data):
    """The same data with hard examples alone."""
    from pixelis.data.store import write_rows
    from pixelis.files import file_sha256

    summary = json.loads((data / "summary.json").read_text())
    for name in ("cota_simple.parquet", "cota_medium.parquet"):
        write_rows([], data / name)
        summary["sha256"][name] = file_sha256(data / name)
    (data / "summary.json").write_text(json.dumps(summary))
    return data


@pytest.fixture(scope="session")
def made_adapter(tmp_path_factory):
    """An adapter of the embedded base that changes nothing yet."""
    from pixelis.config import ModelConfig
    from pixelis.models.load import load_model
    from pixelis.models.lora import add_lora

    folder = tmp_path_factory.mktemp("adapter") / "final"
    base = load_model("pixelis-nano", torch_dtype="float32")
    names = {"model_name": "pixelis-nano", "lora_r": 4, "lora_alpha": 8}
    model = add_lora(base, ModelConfig(**names, lora_dropout=0.0), seed=0)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture
def adapter(made_adapter, workdir):
    """An adapter that a test may harm."""
    return shutil.copytree(made_adapter, workdir / "adapter")


@pytest.fixture
def client(workdir):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{workdir / 'mlflow.db'}")


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


@pytest.fixture
def refused(workdir, capfd, runs, files_below):
    """Run an entry point with bad input: one line, exit code 2, no run, and nothing is written."""
    from pixelis.cli.arguments import run_cli

    def call(main, argv):
        before = files_below(workdir)
        capfd.readouterr()
        assert run_cli(main, argv) == 2
        out, err = capfd.readouterr()
        last = err.splitlines()[-1]
        assert out == "" and last.startswith("error: ") and "Traceback" not in err
        assert files_below(workdir) == before and runs() == []
        return last.removeprefix("error: ")

    return call


@pytest.fixture
def run_process():
    """Run an entry point in a process of its own, as a user does."""

    def run(name, argv):
        command = [sys.executable, "-m", f"pixelis.cli.{name}", *argv]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    return run


@pytest.fixture(scope="session")
def examples():
    """Some thousand examples: every task in every sample type."""
    from pixelis.data.example import SAMPLE_TYPES
    from pixelis.data_prep.generate import generate_example
    from pixelis.data_prep.tasks import TASKS

    return [
        generate_example(seed=5, index=index, task=task, sample_type=sample_type)
        for task in TASKS
        for sample_type in SAMPLE_TYPES
        for index in range(EXAMPLES_PER_KIND)
    ]


@pytest.fixture(scope="session")
def one_of_each(examples):
    """The first example of every task and sample type."""
    return examples[::EXAMPLES_PER_KIND]


@pytest.fixture(scope="session")
def processor():
    """The base's real processor, its tokenizer trained on few texts."""
    from recipes.nano.architecture import build_processor
    from recipes.nano.blend import build_texts
    from recipes.nano.tokenizer import train_tokenizer

    template = TEMPLATE.read_text(encoding="utf-8")
    return build_processor(train_tokenizer(iter(build_texts(0, 100)), template))


@pytest.fixture(scope="session")
def encoder(processor):
    from pixelis.data.encode import Encoder

    return Encoder(processor)


@pytest.fixture(scope="session")
def oracles():
    """The module tests/data_prep/oracles.py; the tests' folders are no packages."""
    spec = importlib.util.spec_from_file_location(
        "oracles", Path(__file__).parent / "data_prep" / "oracles.py"
    )
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def understood(examples, oracles):
    """The examples of a task, each with what its question asks by the oracle."""

    def of_task(task):
        return [(example, oracles.asked(example)) for example in examples if example.task == task]

    return of_task
