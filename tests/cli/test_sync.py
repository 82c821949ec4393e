"""sync, as far as no server is needed; see tests/tracking/test_server.py for the rest."""

import json
from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.sync import main
from pixelis.tracking.journal import Record, open_journal


def sync(*words):
    return run_cli(main, words)


def metric(step):
    return Record("metric", "train/loss", float(step), step, 1_700_000_000_000 + step)


def left(folder, run_id, *records):
    """What a process that is no more has left in a folder."""
    journal = open_journal(Path(folder), run_id)
    for record in records:
        journal.append(record)
    journal.release()
    return journal


def end(status, timestamp=7):
    return Record("end", "status", {"status": status}, timestamp=timestamp)


@pytest.fixture
def run_id(client):
    return client.create_run("0", run_name="first").info.run_id


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "a"], "unrecognized arguments: --config"),
        (["--folder"], "argument --folder: expected one argument"),
        (["nowhere"], "folder must be a folder that exists, got 'nowhere'"),
        (["--folder=nowhere"], "folder must be a folder that exists, got 'nowhere'"),
    ],
)
def test_what_is_wrong_with_a_command_line(workdir, capsys, words, message):
    assert sync(*words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_nothing_to_deliver(workdir, capsys):
    assert sync() == 0
    assert capsys.readouterr().out == "nothing to deliver in outputs\n"
    Path("a").mkdir()
    assert sync("a", "--folder", ".") == 0
    assert capsys.readouterr().out == "nothing to deliver in a, .\n"


def test_everything_below_the_folder_and_in_the_working_folder_is_delivered(
    workdir, client, run_id, capsys
):
    other = client.create_run("0", run_name="second").info.run_id
    killed, resumed = metric(2), metric(3)
    ended = left("outputs/deep/down", run_id, metric(1), end("KILLED"), killed, end("FAILED"))
    left(".", other, resumed, Record("metric", "acc@1", 1.0))
    left("elsewhere", run_id, metric(9))
    assert sync() == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"first ({run_id}): 3 records delivered, FAILED" in lines
    assert f"second ({other}): 3 records delivered, 1 refused, KILLED" in lines
    first, second = client.get_run(run_id), client.get_run(other)
    assert (first.info.status, first.info.end_time) == ("FAILED", 7)
    assert (second.info.status, second.info.end_time) == ("KILLED", 1_700_000_000_003)
    assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == [1, 2]
    assert sorted(path.name for path in workdir.glob("*.jsonl")) == [
        f"journal-{other}.jsonl",
        f"refused-{other}.jsonl",
    ]
    assert ended.is_delivered
    assert sync() == 0  # what is refused is offered again
    assert capsys.readouterr().out == f"second ({other}): 0 records delivered, 1 refused, KILLED\n"


@pytest.mark.parametrize("recorded", ["KILLED", "FAILED", None])
def test_a_training_that_is_whole_is_finished_however_its_process_ended(
    workdir, client, run_id, recorded
):
    left("outputs", run_id, metric(1), *([end(recorded)] if recorded else []))
    Path("outputs/finished.json").write_text(json.dumps({"run_id": run_id}))
    assert sync() == 0
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_run_that_ended_otherwise_meanwhile_keeps_its_end(workdir, client, run_id):
    client.set_terminated(run_id, "FINISHED")
    left("outputs", run_id, metric(1))
    assert sync() == 0
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_run_of_another_store(workdir, capsys):
    journal = left("outputs", "0" * 32, metric(1))
    assert sync() == 1
    said = capsys.readouterr().out
    assert f"run {'0' * 32} is not in sqlite:///" in said
    assert "MLFLOW_TRACKING_URI" in said
    assert not journal.is_delivered and journal.path.is_file()


def test_a_deleted_run(workdir, client, run_id, capsys):
    left("outputs", run_id, metric(1))
    client.delete_run(run_id)
    assert sync() == 1
    assert f"mlflow runs restore --run-id {run_id}" in capsys.readouterr().out
    client.restore_run(run_id)
    assert sync() == 0
    assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == [1]


def test_a_store_that_takes_no_records(workdir, client, run_id, capsys, monkeypatch):
    from mlflow import MlflowClient

    def refuse(*arguments, **words):
        raise ConnectionError("connection refused")

    journal = left("outputs", run_id, metric(1))
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    assert sync() == 1
    told = capsys.readouterr()
    assert "takes no records (connection refused); 2 of 2 wait" in told.out
    assert told.err == ""
    assert not journal.is_delivered and journal.path.is_file()
