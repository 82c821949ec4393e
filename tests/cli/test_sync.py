"""sync, as far as no server is needed; see tests/tracking/test_server.py for the rest."""

from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.sync import main
from pixelis.tracking.delivery import Record
from pixelis.tracking.spool import Spool


def sync(*words: str) -> int:
    return run_cli(main, words)


def metric(step: int) -> Record:
    return Record("metric", "train/loss", float(step), step, 1_700_000_000_000 + step)


@pytest.fixture
def run_id(client):
    return client.create_run("0", run_name="first").info.run_id


def test_help_names_the_default(capsys):
    assert sync("--help") == 0
    assert "[default: outputs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "a"], "Unknown key 'config' in the command line. Valid keys here: folder."),
        (["--folder"], "folder needs a value: --folder VALUE or --folder=VALUE"),
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
    Spool(Path("outputs/deep/down"), run_id).append(
        [metric(1), Record("status", "status", "FAILED", timestamp=7), metric(2)]
    )
    Spool(Path(), other).append([metric(3), Record("metric", "acc@1", 1.0)])
    for spool in (Spool(Path("elsewhere"), run_id), Spool(Path("outputs/deep/down"), run_id)):
        spool.release()
    assert sync() == 0
    said = capsys.readouterr().out.splitlines()
    assert f"first ({run_id}): 3 records delivered, FAILED" in said
    assert f"second ({other}): 3 records delivered, 1 refused, KILLED" in said
    first, second = client.get_run(run_id), client.get_run(other)
    assert (first.info.status, first.info.end_time) == ("FAILED", 7)
    assert (second.info.status, second.info.end_time) == ("KILLED", 1_700_000_000_003)
    assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == [1, 2]
    assert sorted(path.name for path in workdir.glob("*pixelis*")) == [
        f"pixelis-refused-{other}.jsonl"
    ]
    assert list(Path("outputs/deep/down").iterdir()) == []


def test_a_run_that_ended_otherwise_meanwhile_keeps_its_end(workdir, client, run_id):
    client.set_terminated(run_id, "FINISHED")
    spool = Spool(Path("outputs"), run_id)
    spool.append([metric(1)])
    spool.release()
    assert sync() == 0
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_run_of_another_store(workdir, capsys):
    spool = Spool(Path("outputs"), "0" * 32)
    spool.append([metric(1)])
    spool.release()
    assert sync() == 1
    said = capsys.readouterr().out
    assert f"run {'0' * 32} is not in sqlite:///" in said
    assert "MLFLOW_TRACKING_URI" in said
    assert spool.load() == [metric(1)]


def test_a_deleted_run(workdir, client, run_id, capsys):
    spool = Spool(Path("outputs"), run_id)
    spool.append([metric(1)])
    spool.release()
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

    spool = Spool(Path("outputs"), run_id)
    spool.append([metric(1)])
    spool.release()
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    assert sync() == 1
    told = capsys.readouterr()
    assert "takes no records (connection refused); 2 of 2 wait" in told.out
    assert told.err == ""
    assert spool.load() == [metric(1)]
