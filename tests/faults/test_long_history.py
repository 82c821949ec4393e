"""100,000 metric points of a run: what the UI asks a server on a SQLite store comes in seconds."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

pytestmark = pytest.mark.faults

MANY, AT_ONCE, PAGE = 100_000, 1000, 10_000
SECONDS = 30  # for each answer, on two busy cores
START_SECONDS = 180


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("long", artifact_location=str(folder / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    for first in range(0, MANY, AT_ONCE):
        points = [Metric("train/loss", 1 / (1 + s), s, s) for s in range(first, first + AT_ONCE)]
        client.log_batch(run_id, metrics=points)
    return folder, experiment, run_id


@pytest.fixture(scope="module")
def ask(store):
    """Ask a real `mlflow server`; returns the answer and the seconds it took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"sqlite:///{store[0] / 'mlflow.db'}"
    words = ("server", "--backend-store-uri", uri, "--port", str(port), "--workers", "1")
    with (store[0] / "server.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )

    def get(path, *, body=None, **query):
        url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            return json.loads(answer.read() or "{}"), time.monotonic() - began

    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < end, (store[0] / "server.txt").read_text()[-3000:]
                time.sleep(0.5)
        yield get
    finally:
        server.terminate()
        server.wait(timeout=60)


def test_a_page_of_the_history_of_a_metric(ask, store):
    found, seconds = ask(
        "/api/2.0/mlflow/metrics/get-history",
        run_id=store[2],
        metric_key="train/loss",
        max_results=PAGE,
    )
    assert len(found["metrics"]) == PAGE and found["next_page_token"]
    assert seconds < SECONDS


def test_what_the_ui_draws_a_chart_from(ask, store):
    found, seconds = ask(
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval",
        run_ids=store[2],
        metric_key="train/loss",
        max_results=320,
    )
    steps = [int(point["step"]) for point in found["metrics"]]
    assert (steps[0], steps[-1]) == (0, MANY - 1) and len(steps) <= 400
    assert seconds < SECONDS


def test_the_table_of_runs(ask, store):
    found, seconds = ask(
        "/ajax-api/2.0/mlflow/runs/search", body={"experiment_ids": [store[1]], "max_results": 100}
    )
    (run,) = found["runs"]
    assert run["data"]["metrics"][0]["step"] == MANY - 1
    assert seconds < SECONDS
