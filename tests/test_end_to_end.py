"""The whole house: `mlflow run . -e sft` on the smoke configuration, then what it left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of the entry point through MLflow itself; yields its folder and its output."""
    folder = tmp_path_factory.mktemp("smoke run")
    store = f"sqlite:///{folder}/mlflow.db"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    client = MlflowClient(store)
    client.create_experiment("smoke", artifact_location=f"file://{folder}/artifacts")
    command = ["mlflow", "run", str(ROOT), "-e", "sft", "--env-manager", "local"]
    command += ["--experiment-name", "smoke"]
    settings = {
        "config": "configs/smoke/training_params.yaml",
        "data.path": f"{folder}/outputs/smoke/data",
        "training.output_dir": f"{folder}/sft",
    }
    for key, value in settings.items():
        command += ["-P", f"{key}={value}"]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr, client


def only_run(client: MlflowClient):
    (experiment,) = (e for e in client.search_experiments() if e.name == "smoke")
    (run,) = trainings(client, experiment)
    return run


def trainings(client, experiment):
    found = client.search_runs([experiment.experiment_id])
    return [run for run in found if run.data.tags.get("pixelis.entry_point") == "sft"]


def test_the_console_tells_the_story(smoke):
    _, output, _ = smoke
    assert "✅ Advanced curriculum at step" in output
    assert "🔙 Rolled back curriculum at step" in output
    assert "Final Curriculum Statistics:" in output
    assert "Answer accuracy on the test split" in output
    assert "Traceback" not in output


def test_one_finished_run_holds_the_record(smoke):
    folder, _, client = smoke
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert run.data.params["curriculum.rollback_factor"] == "2.0"
    assert len(run.data.metrics) <= 60
    assert {
        *(f"{name}/answer_accuracy" for name in ("test/adapter/all", "test/base/hard")),
        *(f"curriculum/{name}" for name in ("performance_drop", "rollback_count", "mix/hard")),
        *("test/gain/simple", "summary/final/hard", "summary/best/hard", "eval/medium/loss"),
    } <= run.data.metrics.keys()
    assert min(run.data.metrics) == "by_difficulty/hard"  # MLflow sorts charts by name
    stages = client.get_metric_history(run.info.run_id, "curriculum/stage")
    assert [metric.step for metric in stages] == list(range(1, 25))
    events = json.loads((folder / "sft" / "events.json").read_text())
    marks = client.get_metric_history(run.info.run_id, "curriculum/event")
    signs = {"advance": 1.0, "rollback": -1.0}
    expected = [(e["step"], signs[e["kind"]]) for e in events if e["kind"] in signs]
    assert [(m.step, m.value) for m in marks] == expected
    assert {"advance", "rollback"} <= {e["kind"] for e in events}
    artifacts = {f.path for f in client.list_artifacts(run.info.run_id, "curriculum")}
    assert {
        f"curriculum/{name}"
        for name in (
            *("events.json", "timeline.png", "timeline.html", "samples_drawn.png"),
            *("samples_drawn.html", "loss_by_difficulty.png", "loss_by_difficulty.html"),
        )
    } <= artifacts
    names = {i.dataset.name for i in run.inputs.dataset_inputs}
    assert names == {"cota_simple", "cota_medium", "cota_hard", "cota_validation", "cota_test"}


def test_the_adapter_is_whole(smoke):
    folder, _, client = smoke
    for name in ("final", "best"):
        assert (folder / "sft" / name / "adapter_model.safetensors").stat().st_size > 1000
    run = only_run(client)
    adapters = {f.path for f in client.list_artifacts(run.info.run_id, "adapters/final")}
    assert "adapters/final/adapter_model.safetensors" in adapters


@pytest.fixture
def execute(smoke, monkeypatch):
    """Runs a notebook's code cells, one after the other, as Jupyter would; returns what it shows.

    The working folder and the store are those of the smoke run.
    """
    folder, _, client = smoke
    shown = []
    display = type(sys)("IPython.display")
    display.Image, display.Markdown, display.display = bytes, str, shown.append
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "smoke")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    mlflow.set_tracking_uri(client.tracking_uri)

    def execute(name):
        names: dict[str, object] = {}
        for cell in json.loads((NOTEBOOKS / name).read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
        return shown

    yield execute
    mlflow.set_tracking_uri(None)


def test_the_data_notebook_shows_the_data(execute, capsys):
    pictures = execute("inspect_cota_data.ipynb")
    assert [picture[:4] for picture in pictures] == [b"\x89PNG"] * 2
    assert "answer:" in capsys.readouterr().out


# Last: it adds a training to the store.
def test_the_comparison_notebook_makes_the_second_training_and_compares_both(execute, smoke):
    picture, table = execute("compare_curricula.ipynb")
    assert picture.startswith(b"\x89PNG")
    assert (
        "stage reached" in table and "| `curriculum.rollback_threshold` | -0.04 | -0.4 |" in table
    )
    _, _, client = smoke
    (experiment,) = (e for e in client.search_experiments() if e.name == "smoke")
    assert len(trainings(client, experiment)) == 2


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [(c["outputs"], c["execution_count"]) for c in cells] == [([], None)] * len(cells)
