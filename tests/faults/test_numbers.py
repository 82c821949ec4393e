"""Numbers that are not finite, in the real process: what is lost and said, what MLflow shows."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from pixelis.data.store import load_split

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parent.parent.parent
SMOKE = ROOT / "configs" / "smoke"
OPTIONS = {
    "config": SMOKE / "training_params.yaml",
    "model": ROOT / "configs" / "model_arch.yaml",
    "data.prep": SMOKE / "data_prep.yaml",
    "training.max_steps": 12,
    "training.save_steps": 4,
    "evaluation.enabled": "false",
}

BAD_STEP = "loss or gradient of a step NaN or infinite"
LOST = "those steps: not applied, counted; too many in a row stop with the example ids"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "cota"


@pytest.fixture
def sft(tmp_path, data):
    """Train with NaN in certain steps; returns the exit code and what was printed."""

    def run(steps, **options):
        given = OPTIONS | {"data.path": data, "training.output_dir": "out"} | options
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        ended = subprocess.run(
            [sys.executable, Path(__file__).with_name("faulty_sft.py"), json.dumps(steps), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


def ids_in(text, data):
    known = {row["id"] for rows in load_split(data, "train").values() for row in rows}
    found = set(text.split(", "))
    assert found and found <= known
    return found


def test_bad_steps_are_counted_and_not_applied(sft, tmp_path, data, tell):
    code, out, err = sft([2, 7, 8])
    assert code == 0, err
    lines = [line for line in out.splitlines() if "is not applied" in line]
    assert [line.split()[2] for line in lines] == ["2", "7", "8"]
    assert "  Steps not applied: 3" in out
    assert "bad steps 3" in err  # behind the progress bar
    for folder in (tmp_path / "out").glob("checkpoint-*"):
        tensors = load_file(folder / "adapter_model.safetensors").values()
        assert all(tensor.isfinite().all() for tensor in tensors)

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        query = "SELECT run_uuid FROM metrics WHERE key = 'summary/bad_steps' AND value = 3"
        ((run_id,),) = store.execute(query)
    assert client.get_run(run_id).info.status == "FINISHED"
    points = client.get_metric_history(run_id, "train/bad_steps")
    assert [(point.step, point.value) for point in points] == [(2, 1), (7, 2), (8, 3)]
    losses = client.get_metric_history(run_id, "train/loss")
    assert losses and all(point.value == point.value for point in losses)
    tell(BAD_STEP, 3, LOST)


def test_too_many_bad_steps_stop_and_what_they_name_can_be_left_out(sft, tmp_path, data, tell):
    code, out, err = sft([7, 8, 9])
    assert code == 2
    (error,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "up to step 9, where training.max_bad_steps is 3; its examples: " in error
    ids = ids_in(error.partition("its examples: ")[2].partition(". Mend")[0], data)
    assert "Traceback" not in out + err
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        statuses = store.execute(
            "SELECT status FROM runs JOIN tags USING (run_uuid) WHERE key = 'pixelis.error'"
        )
        assert list(statuses) == [("FAILED",)]
    code, out, err = sft([], **{"resume": "auto", "data.exclude": json.dumps(sorted(ids))})
    assert code == 0, err
    assert "going on from out/checkpoint-8 (step 8)" in out
    assert "  Steps not applied: 2" in out
    tell(BAD_STEP, 3, LOST)
