"""Runs whose process was killed are ended by the next start on their machine, and no others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelis.tracking import Past
from pixelis.tracking import runs as runs_module
from pixelis.tracking.journal import Record, open_journal
from pixelis.tracking.sync import (
    ALIVE_TAG,
    DIED_TAG,
    PROCESS_TAG,
    claim,
    end_dead_runs,
)
from tests.tracking.conftest import opened

pytestmark = pytest.mark.integration
ROOT = str(Path(__file__).parent.parent.parent)
DYING = """
import os, signal, sys
from pathlib import Path
from pixelis.tracking import open_run
words = dict(entry_point="sft", experiment="pixelis", run_name="first", params={}, tags={})
with open_run(**words, system_metrics=False, output_dir=Path("out")) as recorder:
    recorder.event({"kind": "start", "step": 0, "stage_to": "simple", "mix": {"simple": 1.0}})
    recorder.flush()
    recorder.metrics({"train/loss": 1.0}, 1)
    print(recorder.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed_run(client, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DYING],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": str(client.tracking_uri), "PYTHONPATH": ROOT},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


@pytest.fixture
def running_run(client):
    """A run that is RUNNING, and the tag of its process with some values changed."""

    def make(**changed):
        run = client.create_run("0")
        claim(client, run, Path("gone/journal-r1.jsonl"))
        (process,) = processes(client, run.info.run_id)
        client.set_tag(run.info.run_id, PROCESS_TAG, json.dumps([process | changed]))
        return str(run.info.run_id)

    return make


def processes(client, run_id):
    return json.loads(client.get_run(run_id).data.tags[PROCESS_TAG])


def status(client, run_id):
    return str(client.get_run(run_id).info.status)


def test_a_killed_run_is_ended_by_the_next_start_and_reopened_by_a_resume(
    client, killed_run, caplog
):
    assert status(client, killed_run) == "RUNNING"
    with opened() as recorder:
        run = client.get_run(killed_run)
        assert run.info.status == "KILLED"
        assert run.data.metrics["train/loss"] == 1.0  # what its journal still held
        assert "ended without a word" in run.data.tags[DIED_TAG]
        assert status(client, recorder.run_id) == "RUNNING"
    assert f"first ({killed_run}) was killed: it is KILLED in MLflow now" in caplog.text
    everything = client.search_runs([run.info.experiment_id])
    assert {r.info.status for r in everything} == {"KILLED", "FINISHED"}  # its visit too
    past = Past(Path("out"), killed_run, 10**6)
    with opened(resume_run_id=killed_run, output_dir=Path("out"), past=past):
        run = client.get_run(killed_run)
        assert run.info.status == "RUNNING" and DIED_TAG not in run.data.tags
        assert processes(client, killed_run)[0]["pid"] == os.getpid()
        assert end_dead_runs(client) == []
        assert status(client, killed_run) == "RUNNING"
    assert status(client, killed_run) == "FINISHED"


def test_a_training_that_is_whole_was_not_killed(client, killed_run):
    Path("out/finished.json").write_text(json.dumps({"run_id": killed_run}))
    (line,) = end_dead_runs(client)
    assert "FINISHED" in line and status(client, killed_run) == "FINISHED"


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_folder_that_a_later_start_has_moved_aside_is_found(client, killed_run, is_finished):
    if is_finished:
        Path("out/finished.json").write_text(json.dumps({"run_id": killed_run}))
    Path("out").rename("out.1")
    (line,) = end_dead_runs(client)
    expected = "had ended: it is FINISHED" if is_finished else "was killed: it is KILLED"
    assert line == f"first ({killed_run}) {expected} in MLflow now"
    run = client.get_run(killed_run)
    assert run.info.status == expected.split()[-1] and (DIED_TAG in run.data.tags) != is_finished
    assert run.data.metrics["train/loss"] == 1.0


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_training_that_ended_while_its_run_was_deleted_is_finished_once_it_is_restored(
    client, is_moved
):
    with opened(output_dir=Path("out")) as recorder:
        run_id = recorder.run_id
        client.delete_run(run_id)
        recorder.metrics({"train/loss": 1.0}, 1)
    if is_moved:  # by a start without resume in the same folder
        Path("out").rename("out.1")
    client.restore_run(run_id)
    assert status(client, run_id) == "RUNNING"
    with opened():
        pass
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"train/loss": 1.0})
    assert DIED_TAG not in run.data.tags


def test_a_run_that_others_took_for_dead_is_finished_in_the_end(client):
    with opened(output_dir=Path("out")) as recorder:
        client.set_terminated(recorder.run_id, "KILLED")
        client.set_tag(recorder.run_id, DIED_TAG, "silence")
    run = client.get_run(recorder.run_id)
    assert run.info.status == "FINISHED" and DIED_TAG not in run.data.tags


def test_a_run_that_was_just_restored_has_time_for_its_next_heartbeat(client, running_run):
    run_id, suspects = running_run(machine="elsewhere"), set()

    def observe(beat):
        client.set_tag(run_id, ALIVE_TAG, str(beat))
        return end_dead_runs(client, grace=1.0, suspects=suspects)

    assert observe(1) == [] and suspects == {run_id}
    assert observe(10**10) == [] and suspects == set()
    assert observe(1) == [] and status(client, run_id) == "RUNNING"
    assert len(observe(1)) == 1 and status(client, run_id) == "KILLED"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "KILLED"),  # on this machine, and its journal is not there any more
        ({"machine": "another one, another container or user"}, "RUNNING"),
    ],
)
def test_only_what_has_surely_died_is_ended(client, running_run, changed, expected):
    run_id = running_run(**changed)
    end_dead_runs(client)
    assert status(client, run_id) == expected


def test_a_run_that_several_machines_share_lives_as_long_as_one_of_them_may(
    client, running_run, tmp_path
):
    run_id = running_run(machine="elsewhere")
    journal = open_journal(tmp_path, run_id, shared=True)
    claim(client, client.get_run(run_id), journal.path, shared=True)
    machines = [each["machine"] for each in processes(client, run_id)]
    assert len(machines) == 2 and machines[0] == "elsewhere"
    journal.append(Record("metric", "train/loss", 1.0))
    journal.release()
    end_dead_runs(client)
    assert status(client, run_id) == "RUNNING"


@pytest.mark.parametrize("text", ["{", "7", "[3]", '[{"host": "x"}]', "[" * 4000])
def test_a_tag_that_is_not_ours_ends_no_run_and_is_written_anew(
    client, running_run, text, tmp_path
):
    run_id = client.create_run("0", tags={PROCESS_TAG: text}).info.run_id
    dead = running_run()
    end_dead_runs(client)
    assert (status(client, run_id), status(client, dead)) == ("RUNNING", "KILLED")
    claim(client, client.get_run(run_id), tmp_path / "journal-r1.jsonl", shared=True)
    (process,) = processes(client, run_id)
    assert process["pid"] == os.getpid()


def test_the_heartbeat_of_another_machine_decides_and_only_once_the_store_answered_long_enough(
    client, running_run, monkeypatch
):
    monkeypatch.setattr(runs_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(runs_module, "GRACE_SECONDS", 1.0)
    silent, beating = running_run(machine="elsewhere"), running_run(machine="elsewhere")
    client.set_tag(silent, ALIVE_TAG, "1")
    client.set_tag(beating, ALIVE_TAG, str(10**10))
    with opened():
        assert status(client, silent) == "RUNNING"
        until = time.monotonic() + 60
        while status(client, silent) == "RUNNING" and time.monotonic() < until:
            time.sleep(0.1)
        assert status(client, silent) == "KILLED" and status(client, beating) == "RUNNING"
