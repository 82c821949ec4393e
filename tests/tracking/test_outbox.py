"""When the outbox delivers, and what it does when MLflow hangs, fails or the process forks."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pixelis.tracking import outbox as outbox_module
from pixelis.tracking import spool as spool_module
from pixelis.tracking.delivery import Record
from pixelis.tracking.outbox import MAX_AGE, MAX_WAITING, PAUSES, Outbox
from pixelis.tracking.spool import Spool


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return str(client.create_run("0").info.run_id)


@pytest.fixture
def spool(run_id: str, tmp_path: Path) -> Spool:
    return Spool(tmp_path / "out", run_id)


@pytest.fixture
def outbox(client: MlflowClient, run_id: str, spool: Spool) -> Outbox:
    return Outbox(client, run_id, spool)


@pytest.fixture
def idle(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """An outbox whose threads a test does by hand."""
    monkeypatch.setattr(outbox, "_start", lambda: None)
    return outbox


@pytest.fixture
def hanging(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A store that takes a batch of metrics (the first event) and hangs until the second one."""
    reached, answer = threading.Event(), threading.Event()
    real = client.log_batch

    def log_batch(*arguments: Any, **words: Any) -> None:
        reached.set()
        answer.wait()
        real(*arguments, **words)

    monkeypatch.setattr(client, "log_batch", log_batch)
    yield reached, answer
    answer.set()


def metrics(*steps: int) -> list[Record]:
    return [Record("metric", "train/loss", float(step), step, 1 + step) for step in steps]


def history(client: MlflowClient, run_id: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, "train/loss")]


def lines(spool: Spool) -> list[int]:
    return [json.loads(line)["step"] for line in spool.path.read_text().splitlines()]


def refuse(*arguments: Any, **words: Any) -> None:
    raise ConnectionError("connection refused")


def test_a_delivery_is_due_by_number_age_or_question(
    idle: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: clock[0])
    assert idle.due_in(100) is None
    idle.add(metrics(1))
    clock[0] = 103
    idle.add(metrics(2))
    assert idle.due_in(103) == MAX_AGE - 3
    idle.wake()
    assert idle.due_in(103) <= 0  # type: ignore[operator]
    assert idle.deliver()
    assert idle.due_in(103) is None
    idle.add(metrics(*range(3, 3 + MAX_WAITING)))
    assert idle.due_in(103) == MAX_AGE
    idle.add(metrics(3 + MAX_WAITING))
    assert idle.due_in(103) == 0


def test_while_mlflow_is_away_it_is_asked_ever_more_rarely(
    idle: Outbox, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(client, "log_batch", refuse)
    idle.add(metrics(*range(2 * MAX_WAITING)))
    for pause in (*PAUSES, PAUSES[-1]):
        assert not idle.deliver()
        idle.wake()
        assert idle.due_in(100.0) == pause


def test_who_adds_does_not_wait_for_a_store_that_hangs_and_the_disk_has_it_all(
    outbox: Outbox,
    client: MlflowClient,
    run_id: str,
    spool: Spool,
    hanging: tuple[threading.Event, threading.Event],
) -> None:
    reached, answer = hanging
    outbox.add(metrics(1, 2))
    outbox.wake()
    assert reached.wait(60)
    outbox.add(metrics(3))
    assert not outbox.flush(patience=0.01)
    outbox.write_down()
    assert lines(spool) == [1, 2, 3]
    answer.set()
    assert outbox.flush()
    outbox.close()
    assert history(client, run_id) == [1, 2, 3]
    assert list(spool.path.parent.iterdir()) == []


def test_a_store_that_answers_after_the_end_harms_nothing(
    outbox: Outbox,
    client: MlflowClient,
    run_id: str,
    spool: Spool,
    hanging: tuple[threading.Event, threading.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached, answer = hanging
    monkeypatch.setattr(outbox, "flush", lambda patience: reached.wait(60))
    before = set(threading.enumerate())
    outbox.add(metrics(1, 2))
    outbox.wake()
    workers = set(threading.enumerate()) - before
    assert outbox.close() == spool.path
    answer.set()
    for each in workers:
        each.join(60)
    assert len(workers) == 2 and not any(each.is_alive() for each in workers)
    assert lines(spool) == [1, 2]  # and `sync` finds that the run has them
    later = Outbox(client, run_id, spool, resumed=True)
    later.take_up(spool.load())
    assert later.deliver()
    assert history(client, run_id) == [1, 2]


def test_an_interrupt_while_it_closes_loses_nothing(
    outbox: Outbox, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(patience: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox, "flush", interrupt)
    outbox.add(metrics(1, 2))
    with pytest.raises(KeyboardInterrupt):
        outbox.close()
    assert lines(spool) == [1, 2]
    assert not spool.held


def test_a_full_disk_is_told_and_tried_again(
    idle: Outbox,
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(records: object) -> None:
        raise OSError("no space left on device")

    idle.add(metrics(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(spool, "append", full)
        assert not idle.write_down()
    assert "wait in memory alone (no space left on device)" in capsys.readouterr().err
    idle.add(metrics(3))
    assert idle.write_down()
    assert lines(spool) == [1, 2, 3]


def test_what_is_replaced_in_a_long_outage_does_not_fill_the_disk(
    idle: Outbox, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "ROOMY", 2000)
    spool = idle.spool = Spool(spool.path.parent, "r1")
    idle.add(metrics(1))
    for number in range(100):
        idle.replace(Record("text", "figure.html", f"{number} {'x' * 500}"))
        assert idle.write_down()
        assert spool.path.stat().st_size < 4000
    first, last = spool.load()
    assert (first.step, last.value[:3]) == (1, "99 ")


def test_a_disk_that_is_full_at_the_end_is_told(
    idle: Outbox,
    spool: Spool,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(records: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(idle, "flush", lambda patience: False)
    monkeypatch.setattr(spool, "rewrite", full)
    idle.add(metrics(1, 2))
    assert idle.close() is None
    assert "2 records for MLflow are lost (no space left" in capsys.readouterr().err


def test_several_threads_may_add(outbox: Outbox, client: MlflowClient, run_id: str) -> None:
    def add(first: int) -> None:
        for step in range(first, 400, 4):
            outbox.add(metrics(step))

    threads = [threading.Thread(target=add, args=[first]) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outbox.flush()
    assert sorted(history(client, run_id)) == list(range(400))


def test_a_forked_child_has_nothing_to_deliver_and_the_parent_all(
    outbox: Outbox,
    client: MlflowClient,
    run_id: str,
    hanging: tuple[threading.Event, threading.Event],
) -> None:
    reached, answer = hanging
    outbox.add(metrics(1, 2))
    outbox.wake()
    assert reached.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if outbox.flush() and len(outbox) == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    answer.set()
    assert outbox.flush()
    assert history(client, run_id) == [1, 2]


def test_what_a_resumed_run_has_is_not_sent_again_even_with_another_time(
    outbox: Outbox, client: MlflowClient, run_id: str, spool: Spool
) -> None:
    outbox.add(metrics(1, 2))
    outbox.flush()
    resumed = Outbox(client, run_id, spool, resumed=True)
    resumed.take_up(metrics(2, 3))
    told_again = [Record("metric", "train/loss", 9.0, step, 10**12) for step in range(1, 5)]
    resumed.add(told_again)
    resumed.flush()
    resumed.add(told_again)
    resumed.flush()
    found = client.get_metric_history(run_id, "train/loss")
    assert [(m.step, m.value) for m in found] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 9.0)]


def test_a_kind_of_a_newer_version_is_refused(
    idle: Outbox, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    idle.add([Record("hologram", "a", 1)])
    assert idle.deliver()
    assert "Unknown kind of record 'hologram'. Choices: metric, param" in capsys.readouterr().err
    assert json.loads(spool.refused.read_text())["kind"] == "hologram"


def test_a_refused_record_that_cannot_be_kept_is_told(
    idle: Outbox,
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(records: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(spool, "refuse", full)
    idle.add([Record("hologram", "a", 1)])
    assert idle.deliver()
    assert "what MLflow refuses is not kept (no space left" in capsys.readouterr().err
