"""Runs whose process was killed are ended by the next start on their machine, and no others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from pixelis.tracking import open_run
from pixelis.tracking.process import (
    ALIVE_TAG,
    DIED_TAG,
    PROCESS_TAG,
    claim,
    end_dead_runs,
    is_dead,
    this_process,
)

DYING = """
import os, signal, sys
from pixelis.tracking import open_run
words = dict(entry_point="sft", experiment="pixelis", run_name="first", params={}, tags={})
with open_run(**words, system_metrics=False) as recorder:
    recorder.event({"kind": "start", "step": 0, "stage_to": "simple", "mix": {"simple": 1.0}})
    recorder.flush()
    print(recorder.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def opened(run_id=None):
    words = {"entry_point": "sft", "experiment": "pixelis", "run_name": "next"}
    return open_run(**words, params={}, tags={}, system_metrics=False, resume_run_id=run_id)


def killed_run(client):
    done = subprocess.run(
        [sys.executable, "-c", DYING],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": client.tracking_uri, "PYTHONPATH": ROOT},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


ROOT = str(Path(__file__).parent.parent.parent)


def running_run(client, **process):
    told = json.dumps([{**this_process(), **process}])
    return client.create_run("0", tags={PROCESS_TAG: told}).info.run_id


def test_a_killed_run_is_ended_by_the_next_start_and_reopened_by_a_resume(client, capfd):
    run_id = killed_run(client)
    assert client.get_run(run_id).info.status == "RUNNING"
    with opened() as recorder:
        run = client.get_run(run_id)
        assert run.info.status == "KILLED"
        assert "is no more" in run.data.tags[DIED_TAG]
        assert client.get_run(recorder.run_id).info.status == "RUNNING"
    assert f"first ({run_id}) was killed: it is KILLED in MLflow now" in capfd.readouterr().err
    everything = client.search_runs([run.info.experiment_id])
    assert {r.info.status for r in everything} == {"KILLED", "FINISHED"}  # its visit too
    with opened(run_id) as resumed:
        run = client.get_run(run_id)
        assert resumed.run_id == run_id and run.info.status == "RUNNING"
        assert DIED_TAG not in run.data.tags
        assert json.loads(run.data.tags[PROCESS_TAG])[0]["pid"] == os.getpid()
        end_dead_runs(client, print)
        assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).info.status == "FINISHED"


def gone():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not psutil.pid_exists(process.pid)
    return process.pid


@pytest.mark.parametrize(
    ("process", "status"),
    [
        ({}, "RUNNING"),
        ({"pid": None}, "KILLED"),
        ({"started": 1.0}, "KILLED"),  # the number is another process's by now
        ({"pid": None, "host": "elsewhere"}, "RUNNING"),
        ({"pid": None, "machine": "another one of the same name"}, "RUNNING"),
        ({"pid": None, "pids": "pid:[1]"}, "RUNNING"),  # another container
        ({"pid": None, "boot": "before"}, "RUNNING"),  # its last sign of life is from just now
    ],
)
def test_only_what_has_surely_died_is_ended(client, process, status):
    run_id = running_run(client, **{k: gone() if k == "pid" else v for k, v in process.items()})
    end_dead_runs(client, print)
    assert client.get_run(run_id).info.status == status


def test_a_zombie_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    facts = {**this_process(), "pid": process.pid}
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    facts["started"] = float(stat.rpartition(")")[2].split()[19])
    assert not is_dead(facts, time.time())
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(facts, time.time())
    process.communicate()


def test_after_a_restart_of_the_machine_silence_is_death():
    if not this_process()["machine"]:
        pytest.skip("this machine has no /etc/machine-id")
    before = {**this_process(), "boot": "before"}
    assert not is_dead(before, time.time())
    assert is_dead(before, psutil.boot_time() - 3600)
    assert not is_dead({**before, "machine": ""}, psutil.boot_time() - 3600)


def test_a_run_that_several_machines_share_lives_as_long_as_one_of_them_may(client):
    run_id = running_run(client, host="elsewhere")
    claim(client, client.get_run(run_id), shared=True)
    told = json.loads(client.get_run(run_id).data.tags[PROCESS_TAG])
    assert [each["host"] for each in told] == ["elsewhere", this_process()["host"]]
    told[1]["pid"] = gone()
    client.set_tag(run_id, PROCESS_TAG, json.dumps(told))
    end_dead_runs(client, print)
    assert client.get_run(run_id).info.status == "RUNNING"


@pytest.mark.parametrize("text", ["{", "7", "[3]", '[{"host": "x"}]'])
def test_what_is_no_process_is_left_alone(client: MlflowClient, text):
    run_id = client.create_run("0", tags={PROCESS_TAG: text, ALIVE_TAG: "x"}).info.run_id
    end_dead_runs(client, print)
    assert client.get_run(run_id).info.status == "RUNNING"


@pytest.mark.parametrize(
    "malformed",
    [
        {"pid": "abc"},
        {"pid": "7"},
        {"pid": -1},
        {"pid": 10**30},
        {"pid": True},
        {"pid": None},
        {"started": "x"},
        {"started": 10**400},
        {"started": None},
        {"pids": 7, "pid": [1]},
    ],
    ids=range(10),
)
def test_a_malformed_tag_keeps_no_other_run_alive(client: MlflowClient, malformed):
    odd = running_run(client, **malformed)
    dead = running_run(client, pid=gone())
    later = running_run(client, **malformed)
    end_dead_runs(client, print)
    assert client.get_run(dead).info.status == "KILLED"
    assert {client.get_run(each).info.status for each in (odd, later)} == {"RUNNING"}


def test_a_tag_that_is_nested_without_end_is_written_anew(client: MlflowClient):
    run_id = client.create_run("0", tags={PROCESS_TAG: "[" * 4000}).info.run_id
    claim(client, client.get_run(run_id), shared=True)
    assert json.loads(client.get_run(run_id).data.tags[PROCESS_TAG]) == [this_process()]


@pytest.mark.parametrize("alive", ["9" * 400, "\u0663", "-1", "nan"])
def test_a_sign_of_life_that_is_no_time(client: MlflowClient, alive):
    run_id = running_run(client, pid=gone())
    client.set_tag(run_id, ALIVE_TAG, alive)
    end_dead_runs(client, print)
    run = client.get_run(run_id)
    assert run.info.status == "KILLED" and run.info.end_time < 10**15
