"""Opening, resuming and ending runs, against a real store."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from pixelis.errors import ConfigError, UserError
from pixelis.tracking.runs import FIRST_KEY, git_tags, name_opened_run
from tests.tracking.conftest import opened


def run_of(**changes):
    settings = {"params": {"training.seed": 3}, "tags": {"base_model": "pixelis-nano"}}
    return opened(**settings | changes)


def test_a_new_run_has_its_name_experiment_params_and_tags(client):
    with run_of(
        params={"training.seed": 3, "curriculum.enabled": True, "resume": None}
    ) as recorder:
        assert client.get_run(recorder.run_id).info.status == "RUNNING"
    run = client.get_run(recorder.run_id)
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "pixelis"
    assert run.data.params == {
        "training.seed": "3",
        "curriculum.enabled": "true",
        "resume": "null",
    }
    assert run.data.tags["pixelis.entry_point"] == "sft"
    assert run.data.tags["base_model"] == "pixelis-nano"
    assert run.data.tags["mlflow.source.name"] == "pixelis"
    assert mlflow.active_run() is None


def test_the_run_that_mlflow_run_opened_has_a_name_before_it_is_open(client, monkeypatch):
    name_opened_run("no run")
    outer = client.create_run("0", run_name="capable-auk-759")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    name_opened_run("making data · seed 0")
    assert client.get_run(outer.info.run_id).info.run_name == "making data · seed 0"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    name_opened_run("a run that is not there")
    assert os.environ["MLFLOW_RUN_ID"] == "0" * 32


def test_the_run_that_mlflow_run_opened_is_used_and_keeps_its_params(client, monkeypatch, caplog):
    outer = client.create_run("0", run_name="capable-auk-759")
    client.log_param(outer.info.run_id, "training.learning_rate", "1e-5")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    with run_of(params={"training.learning_rate": 1e-05, "training.seed": 3}) as recorder:
        recorder.metrics({"train/loss": 1.5}, 1)
        assert "MLFLOW_RUN_ID" not in os.environ
    run = client.get_run(outer.info.run_id)
    assert recorder.run_id == outer.info.run_id
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.learning_rate": "1e-5", "training.seed": "3"}
    assert run.data.metrics == {"train/loss": 1.5}
    assert client.get_experiment_by_name("pixelis") is None
    assert not caplog.records  # nothing was logged again and refused


def test_the_experiment_of_the_environment_wins(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    with run_of() as recorder:
        pass
    assert client.get_experiment(recorder.experiment_id).name == "theirs"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    with run_of() as recorder:
        pass
    assert recorder.experiment_id == "0"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("training.seed must be >= 0, got -1.\nmore"), "FAILED", "training.seed must"),
        (ZeroDivisionError(), "FAILED", "ZeroDivisionError"),
        (SystemExit(2), "FAILED", "2"),
        (SystemExit(0), "FINISHED", None),
        (SystemExit(143), "KILLED", None),
        (KeyboardInterrupt(), "KILLED", None),
    ],
)
def test_the_status_is_what_the_work_earned(client, error, status, message):
    with pytest.raises(type(error)), run_of() as recorder:
        recorder.metrics({"train/loss": 2.0}, 7)
        raise error
    run = client.get_run(recorder.run_id)
    assert run.info.status == status
    assert run.data.metrics == {"train/loss": 2.0}
    told = run.data.tags.get("pixelis.error")
    assert told is None if message is None else told is not None and told.startswith(message)
    assert told is None or "more" not in told


def test_sigterm_kills_the_run_properly(client):
    with pytest.raises(SystemExit) as left, run_of() as recorder:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal should have ended the block")
    assert left.value.code == 143
    assert client.get_run(recorder.run_id).info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_resumed_training_goes_on_in_its_first_run_with_no_step_twice(
    client, history, monkeypatch
):
    with pytest.raises(KeyboardInterrupt), run_of() as first:
        for step in range(1, 8):
            first.metrics({"train/loss": float(step)}, step)
        first.metrics({"eval/simple/accuracy": 0.5}, 5)
        raise KeyboardInterrupt
    outer = client.create_run("0", run_name="capable-auk-759")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    with run_of(run_name="second", resume_run_id=first.run_id) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        for step in range(5, 10):  # the checkpoint was older than the last step
            second.metrics({"train/loss": float(step)}, step)
        second.metrics({"eval/simple/accuracy": 0.7}, 10)
    assert second.run_id == first.run_id
    assert history(first.run_id, "train/loss") == [(n, float(n)) for n in range(1, 10)]
    assert history(first.run_id, "eval/simple/accuracy") == [(5, 0.5), (10, 0.7)]
    resumed, shell = client.get_run(first.run_id), client.get_run(outer.info.run_id)
    assert resumed.info.status == "FINISHED"
    assert resumed.info.run_name == "first"
    assert shell.info.status == "FINISHED"
    assert shell.info.run_name == "resume of first"
    assert shell.data.tags["pixelis.resumes"] == first.run_id
    assert f"/runs/{first.run_id}" in shell.data.tags["mlflow.note.content"]
    assert shell.data.metrics == {}
    assert "pixelis.entry_point" not in shell.data.tags


def test_a_resumed_run_that_fails_fails_in_both_and_may_recover(client, monkeypatch):
    with run_of() as first:
        pass
    outer = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    with pytest.raises(RuntimeError), run_of(resume_run_id=first.run_id):
        raise RuntimeError("out of memory")
    for run_id in (first.run_id, outer.info.run_id):
        assert client.get_run(run_id).info.status == "FAILED"
        assert client.get_run(run_id).data.tags["pixelis.error"] == "out of memory"
    with run_of(resume_run_id=first.run_id):
        pass
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert "pixelis.error" not in client.get_run(first.run_id).data.tags


@pytest.mark.parametrize("gone", ["unknown", "deleted", "malformed"])
def test_a_run_that_is_not_in_the_store_is_replaced_by_a_new_one(client, caplog, gone):
    run_id = {"unknown": "0" * 32, "malformed": "no id/at all"}.get(gone)
    if run_id is None:
        run_id = client.create_run("0").info.run_id
        client.delete_run(run_id)
    with run_of(resume_run_id=run_id) as recorder:
        pass
    assert recorder.run_id != run_id
    why = "was deleted (mlflow runs restore" if gone == "deleted" else "is not in this MLflow store"
    assert f"run {run_id} {why}" in caplog.text


def test_a_run_inside_a_run_is_its_child(client):
    with run_of() as parent, run_of(run_name="child") as child:
        pass
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert client.get_run(parent.run_id).info.status == "FINISHED"


def test_a_store_that_cannot_be_opened_is_a_clear_error(tmp_path, client):
    (tmp_path / "broken.db").write_bytes(b"this is no database, and long enough to be read as one")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'broken.db'}")
    with pytest.raises(UserError, match="MLflow cannot open a run"), run_of():
        pass


def test_a_deleted_experiment_is_a_clear_error(client):
    client.delete_experiment(client.create_experiment("pixelis"))
    with (
        pytest.raises(UserError, match="'pixelis' was deleted.*mlflow experiments restore"),
        run_of(),
    ):
        pass


@pytest.mark.parametrize(
    ("wanted", "environment", "recorded"),
    [(True, None, True), (False, None, False), (True, "false", False), (False, "true", True)],
)
def test_system_metrics_go_the_same_way_until_the_run_ends(
    client, history, monkeypatch, wanted, environment, recorded
):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    if environment:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", environment)
    with run_of(system_metrics=wanted) as recorder:
        until = time.monotonic() + (60 if recorded else 0.1)
        while recorder.next_step(FIRST_KEY) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    steps = [step for step, _ in history(recorder.run_id, FIRST_KEY)]
    assert steps == list(range(len(steps))) and bool(steps) == recorded


@pytest.mark.integration
def test_mlflow_run_itself(client, tmp_path):
    """The real thing: a project whose command opens the run, with a parameter given by -P."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text(
        "name: demo\nentry_points:\n  sft:\n    parameters:\n"
        "      lr: {type: string, default: '1e-5'}\n    command: 'python step.py {lr}'\n"
    )
    (project / "step.py").write_text(
        "from pixelis.tracking import open_run\n"
        "with open_run(entry_point='sft', experiment='pixelis', run_name='told', tags={},\n"
        "              params={'lr': 1e-05, 'seed': 1}, system_metrics=False) as recorder:\n"
        "    recorder.metrics({'train/loss': 1.0}, 1)\n"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mlflow",
            "run",
            str(project),
            "-e",
            "sft",
            "--env-manager",
            "local",
        ],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "told"
    assert run.data.params == {"lr": "1e-5", "seed": "1"}
    assert run.data.metrics == {"train/loss": 1.0}


def test_git_tags_name_the_commit_and_whether_the_code_was_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    code = tmp_path / "code.py"
    code.write_text("x = 1\n")
    assert git_tags(code) == {}
    git("init", "-q")
    assert git_tags(code) == {}  # inside a repository, but no part of it
    git("add", "code.py")
    git("commit", "-q", "-m", "one")
    tags = git_tags(code)
    assert len(tags["git.commit"]) == 40
    assert tags["git.dirty"] == "false"
    code.write_text("x = 2\n")
    assert git_tags(code) == tags | {"git.dirty": "true"}


def test_without_git_there_are_no_tags(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_tags() == {}
