"""Runs on a real server that is killed and comes back, or does not: nothing lost, nothing twice."""

import json
import os
import random
import shutil
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from pyarrow import parquet

from pixelis.cli.sync import main as sync
from pixelis.tracking import Journal, Past
from tests.forking import ForkServer
from tests.postgres import POSTGRES, SECONDS, free_port, postgres, wait_for
from tests.tracking.conftest import opened as open_sft

__all__ = ["postgres"]  # a fixture

pytestmark = pytest.mark.integration


class Server:
    """A server on one port, from one store."""

    def __init__(self, folder, store):
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.fork = None
        self.artifacts = folder / "artifacts"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        settings = {
            "FILE_STORE": store,
            "REGISTRY_STORE": store,
            "ARTIFACT_ROOT": "mlflow-artifacts:/",
            "SERVE_ARTIFACTS": "true",
            "ARTIFACT_DESTINATION": str(self.artifacts),
        }
        environment |= {f"_MLFLOW_SERVER_{name}": value for name, value in settings.items()}
        self.forks = ForkServer("tests.tracking.forked_server", environment)

    def start(self):
        if self.fork is None:
            self.fork = self.forks.start({"port": self.port})

    def answers(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=SECONDS) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def up(self):
        self.start()
        wait_for(self.answers)

    def signal(self, number):
        if self.fork is not None:
            os.kill(self.fork.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.fork is not None:
            assert self.fork.wait(SECONDS) == -signal.SIGKILL
        self.fork = None

    def close(self):
        self.kill()
        self.forks.close()


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    if POSTGRES:
        store = request.getfixturevalue("postgres")
    else:
        shutil.copy(request.getfixturevalue("empty_store"), folder / "mlflow.db")
        store = f"sqlite:///{folder / 'mlflow.db'}"
    server = Server(folder, store)
    server.up()
    MlflowClient(server.uri).search_experiments()  # it makes its tables now
    yield server
    server.close()


@pytest.fixture
def client(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # a stalled server is given up sooner
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(None)
    server.up()
    yield MlflowClient(server.uri)
    mlflow.set_tracking_uri(None)


def opened(**changes):
    settings = {"params": {"training.seed": 3}, "run_name": "r", "output_dir": Path("out")}
    return open_sft(**settings | changes)


def event(step, kind, **fields):
    return {"step": step, "kind": kind, "rollback_count": 0, "interval": 500, **fields}


def steps(client, run_id, key):
    return [metric.step for metric in client.get_metric_history(run_id, key)]


def kept(client, run_id, name):
    return Path(client.download_artifacts(run_id, name))


def is_delivered(folder):
    (path,) = folder.glob("journal-*.jsonl")
    return Journal(path).is_delivered and not list(folder.glob(".*.files"))


def test_everything_arrives_through_the_artifact_proxy(client, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.bin").write_bytes(b"1234")
    parquet.write_table(pa.table({"id": ["a"] * 3}), tmp_path / "cota_simple.parquet")
    figure = Figure()
    figure.subplots().plot([1, 2])
    with opened(system_metrics=True) as recorder:
        recorder.metrics({"train/loss": 1.5, "train/lr": 0.1}, 1)
        recorder.event(event(1, "advance", delta=0.1, mix={"simple": 1.0}))
        recorder.artifact(tmp_path / "adapter", "adapters/final")
        shutil.rmtree(tmp_path / "adapter")  # a checkpoint may rotate away
        recorder.figure("curriculum/timeline.png", figure)
        recorder.table([{"task": "count", "right": 1}], "t.json")
        recorder.dataset(tmp_path / "cota_simple.parquet", name="cota_simple", context="training")
        recorder.note("# Look")
    run = client.get_run(recorder.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert run.data.params == {"training.seed": "3"}
    assert run.data.metrics["train/loss"] == 1.5
    assert run.data.metrics["curriculum/performance_drop"] == 0.1
    assert run.data.tags["mlflow.note.content"] == "# Look"
    assert run.inputs.dataset_inputs[0].dataset.name == "cota_simple"
    assert kept(client, recorder.run_id, "adapters/final/weights.bin").read_bytes() == b"1234"
    assert kept(client, recorder.run_id, "curriculum/timeline.png").read_bytes()[1:4] == b"PNG"
    assert json.loads(kept(client, recorder.run_id, "t.json").read_text())["data"] == [["count", 1]]
    events = json.loads(kept(client, recorder.run_id, "curriculum/events.json").read_text())
    assert [each["step"] for each in events] == [1]
    assert is_delivered(tmp_path / "out")


def test_the_password_of_the_server_reaches_neither_store_nor_console(
    client, server, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("://", "://me:pa55-w0rd@"))
    with pytest.raises(RuntimeError), opened() as recorder:
        recorder.metrics({"train/loss": 1.5}, 1)
        recorder.flush()
        server.kill()
        recorder.attempt("asking", lambda: recorder.client.get_run(recorder.run_id))
        print(recorder.url_hint())
        recorder.metrics({"train/loss": 1.5}, 2)
        raise RuntimeError(f"no answer from {recorder.client.tracking_uri}")
    told = "".join(capfd.readouterr()) + caplog.text
    assert "asking failed (MlflowException" in told
    assert server.uri in told
    journaled = recorder.journal.path.read_text()
    server.up()
    assert sync(["out"]) == 0
    run = client.get_run(recorder.run_id)
    assert run.data.tags["pixelis.error"] == f"no answer from {server.uri}"
    everything = [told, journaled, "".join(capfd.readouterr()), str(run.to_dictionary())]
    everything += [path.read_text() for path in server.artifacts.rglob("*.json")]
    assert [text for text in everything if "pa55-w0rd" in text] == []


def test_a_server_that_is_killed_at_random_moments_and_comes_back(
    client, server, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("pixelis.tracking.delivery.PERIOD", 0.05)
    moments = sorted(random.Random(5).sample(range(100, 2900), 12))
    actions = dict(zip(moments, [server.kill, server.start] * 6, strict=True))
    stalled = moments[4]  # this time it hangs before it dies: the worst that a server can do
    actions[stalled] = lambda: server.signal(signal.SIGSTOP)
    actions[moments[5]] = lambda: (server.kill(), server.start())
    longest, told = 0.0, []
    with opened() as recorder:
        for step in range(3000):
            actions.get(step, lambda: None)()
            began = time.monotonic()
            recorder.metrics({"train/loss": float(step), "train/lr": 0.1}, step)
            if step % 500 == 7:
                told.append(event(step, "rollback", delta=-0.1))
                recorder.event(told[-1])
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.001)
        server.up()
        wait_for(recorder.flush)  # a server that has just come back may be slow
    assert longest < 5  # a call that waited for the stalled server would take ten
    for key in ("train/loss", "train/lr"):
        assert steps(client, recorder.run_id, key) == list(range(3000))
    assert [
        (metric.step, metric.value)
        for metric in client.get_metric_history(recorder.run_id, "curriculum/event")
    ] == [(each["step"], -1.0) for each in told]
    losses = client.get_metric_history(recorder.run_id, "train/loss")
    assert [metric.value for metric in losses] == [float(step) for step in range(3000)]
    assert sorted(losses, key=lambda m: m.timestamp) == losses
    assert json.loads(kept(client, recorder.run_id, "curriculum/events.json").read_text()) == told
    assert client.get_run(recorder.run_id).info.status == "FINISHED"
    assert is_delivered(tmp_path / "out")
    said = caplog.text
    assert "Traceback" not in said
    assert said.count("MLflow did not take a record") >= said.count("answers again") > 0


def test_a_server_that_does_not_come_back_before_the_end(client, server, tmp_path, capfd, caplog):
    with pytest.raises(KeyboardInterrupt), opened() as recorder:
        recorder.metrics({"train/loss": 0.0}, 0)
        recorder.flush()
        server.kill()
        for step in range(1, 1500):
            recorder.metrics({"train/loss": float(step)}, step)
        recorder.event(event(1400, "advance"))
        with_file = tmp_path / "temporary"
        with_file.mkdir()
        (with_file / "a.bin").write_bytes(b"abc")
        recorder.artifact(with_file / "a.bin", "kept")
        shutil.rmtree(with_file)
        raise KeyboardInterrupt
    journal = Journal(recorder.journal.path)
    assert "Traceback" not in caplog.text
    assert f"python -m pixelis.cli.sync {journal.path.parent}" in caplog.text
    before = journal.path.read_bytes()

    capfd.readouterr()
    assert sync(["out"]) == 1
    assert "cannot be reached" in capfd.readouterr().out
    assert journal.path.read_bytes() == before

    server.up()
    assert client.get_run(recorder.run_id).info.status == "RUNNING"
    assert journal.acquire()  # as the training itself, or another sync
    assert sync(["out"]) == 0
    assert "in use by the training" in capfd.readouterr().out
    assert not journal.is_delivered
    journal.release()

    num_left = sum(1 for _ in journal.read(journal.sent))
    assert num_left >= 1502
    assert sync(["out"]) == 0
    run = client.get_run(recorder.run_id)
    line = f"r ({recorder.run_id}): {num_left} records delivered, KILLED\n"
    assert capfd.readouterr().out == line
    assert run.info.status == "KILLED"
    assert run.info.end_time == json.loads(before.splitlines()[-1])["timestamp"]
    assert steps(client, recorder.run_id, "train/loss") == list(range(1500))
    assert steps(client, recorder.run_id, "curriculum/event") == [1400]
    assert kept(client, recorder.run_id, "kept/a.bin").read_bytes() == b"abc"
    assert is_delivered(tmp_path / "out")
    assert sync(["out"]) == 0
    assert capfd.readouterr().out == "nothing to deliver in out\n"


def test_a_training_that_is_killed_in_an_outage_goes_on_in_its_run(client, server, tmp_path):
    """The checkpoint is older than what was recorded: steps after it come again."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with opened(params={"training.seed": 3}) as recorder:
                for step in range(50):
                    recorder.metrics({"train/loss": float(step)}, step)
                recorder.flush()
                for step in range(50, 75):
                    recorder.metrics({"train/loss": float(step)}, step)
                recorder.artifact(Path(__file__), "kept")
                length = recorder.position()
                os.write(writing, f"{recorder.run_id} {length}".encode())
                recorder.event(event(99, "advance"))
                for step in range(75, 100):
                    recorder.metrics({"train/loss": float(step)}, step)
                with recorder.journal.path.open("a") as file:
                    file.write('{"kind": "metric", "name": "to')  # torn
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    run_id, length = os.read(reading, 100).decode().split()
    server.kill()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    server.up()
    with opened(resume_run_id=run_id, past=Past(Path("out"), run_id, int(length))) as recorder:
        for step in range(75, 120):
            recorder.metrics({"train/loss": float(step)}, step)
    assert recorder.run_id == run_id
    assert steps(client, run_id, "train/loss") == list(range(120))
    losses = client.get_metric_history(run_id, "train/loss")
    assert [metric.value for metric in losses] == [float(step) for step in range(120)]
    assert kept(client, run_id, f"kept/{Path(__file__).name}").read_bytes()
    assert client.get_run(run_id).info.status == "FINISHED"
    assert is_delivered(tmp_path / "out")
