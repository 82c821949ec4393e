"""What a run's journal keeps, sends and finds again, whatever MLflow, the disk or a kill does."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException

from pixelis.errors import UserError
from pixelis.tracking import MlflowRecorder, Past, deliver_journals, find_journals
from pixelis.tracking import delivery as delivery_module
from pixelis.tracking import journal as journal_module
from pixelis.tracking.journal import Record, open_journal
from pixelis.tracking.sync import claim

History = Callable[[str, str], list[tuple[int, float]]]
LOSS = "train/loss"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def recorder(client, out):
    return MlflowRecorder(client, client.create_run("0", run_name="r"), output_dir=out)


def resumed(recorder, past=None):
    """The run of a recorder that was closed, or whose process has ended, goes on."""
    recorder.journal.release()
    run = recorder.client.get_run(recorder.run_id)
    folder = recorder.journal.path.parent
    return MlflowRecorder(recorder.client, run, resumed=True, output_dir=folder, past=past)


def losses(recorder, *steps):
    for step in steps:
        recorder.metrics({LOSS: float(step)}, step)


def values(*steps):
    return [(step, float(step)) for step in steps]


def kinds(journal):
    return [(record.kind, record.name) for record, _ in journal.read() if record]


@pytest.fixture
def hanging(client, monkeypatch):
    """A store that takes a batch of metrics (the first event) and hangs until the second one."""
    reached, answer = threading.Event(), threading.Event()
    real = client.log_batch

    def log_batch(*args, **kwargs):
        reached.set()
        answer.wait()
        real(*args, **kwargs)

    monkeypatch.setattr(client, "log_batch", log_batch)
    yield reached, answer
    answer.set()


# On disk first


def test_a_record_is_on_disk_before_mlflow_hears_of_it_and_stays_when_it_has(
    recorder, history, hanging
):
    reached, answer = hanging
    losses(recorder, 1, 2)
    assert not recorder.flush(0.01)
    assert reached.wait(60)
    losses(recorder, 3)
    assert [record.step for record, _ in recorder.journal.read() if record] == [1, 2, 3]
    answer.set()
    assert recorder.flush()
    recorder.close("FINISHED")
    assert history(recorder.run_id, LOSS) == values(1, 2, 3)
    assert recorder.journal.is_delivered and len(kinds(recorder.journal)) == 4
    assert find_journals([recorder.journal.path.parent]) == []


def test_a_run_without_a_folder_of_its_own_leaves_no_journal(client, tmp_path):
    recorder = MlflowRecorder(client, client.create_run("0"))
    losses(recorder, 1)
    assert recorder.journal.path.is_file()
    recorder.close("FINISHED")
    assert [path.name for path in tmp_path.iterdir() if "journal" in path.name] == []


def test_lines_that_a_kill_has_torn_are_skipped_and_not_written_on(tmp_path):
    journal = open_journal(tmp_path, "r1")
    for step in (1, 2):
        journal.append(Record("metric", LOSS, 1.0, step))
    journal.release()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'[1]\n{"kind": "metric", "surprise": 1}\n' + whole[:30])
    journal = open_journal(tmp_path, "r1")
    journal.append(Record("text", "é.md", "line\nline\u2028\udc80"))
    records = [record for record, _ in journal.read() if record]
    assert [record.step for record in records] == [1, 2, 0]
    assert records[-1].value == "line\nline\u2028\udc80"
    journal.release()


def test_several_threads_record_at_once(recorder, history):
    def add(key):
        for step in range(200):
            recorder.metrics({f"k{key}": float(step)}, step)

    threads = [threading.Thread(target=add, args=[key]) for key in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.flush()
    for key in range(4):
        assert history(recorder.run_id, f"k{key}") == values(*range(200))


def test_two_processes_do_not_hold_a_journal_at_once(out, monkeypatch):
    monkeypatch.setattr(journal_module, "IN_USE_SECONDS", 0.0)
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from pixelis.tracking.journal import open_journal\n"
        f"journal = open_journal(Path({str(out)!r}), 'r1')\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(60)\n    os._exit(0)\n"
        "print(child, flush=True)\nsys.stdin.read()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **words) as process:
        child = int(process.stdout.readline())
        with pytest.raises(UserError, match=r"r1.jsonl are being delivered by another process; go"):
            open_journal(out, "r1")
        shared = open_journal(out, "r1", shared=True)
        assert (shared.path.name, shared.run_id) == ("journal-r1.2.jsonl", "r1")
        shared.release()
        process.stdin.close()
        assert process.wait() == -signal.SIGKILL
        try:
            open_journal(out, "r1").release()  # free, although the child lives
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_records_and_its_parent_sends(recorder, history, hanging):
    reached, answer = hanging
    losses(recorder, 1, 2)
    recorder.flush(0.01)
    assert reached.wait(60)
    child = os.fork()
    if child == 0:
        try:
            losses(recorder, 3)
            os._exit(0 if recorder.flush() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    answer.set()
    losses(recorder, 4)
    recorder.close("FINISHED")
    assert history(recorder.run_id, LOSS) == values(1, 2, 3, 4)


# A full disk


def test_a_full_disk_is_logged_and_what_waited_in_memory_is_written_later(
    recorder, history, monkeypatch, caplog
):
    losses(recorder, 1)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", lambda file, line: 5)
        patch.setattr(journal_module.os, "ftruncate", lambda file, size: None)
        losses(recorder, 2, 3)
    assert "wait in memory alone" in caplog.text and "no space left on its disk" in caplog.text
    losses(recorder, 4)
    assert recorder.flush()
    assert history(recorder.run_id, LOSS) == values(1, 2, 3, 4)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", lambda file, line: 5)
        patch.setattr(journal_module.os, "ftruncate", lambda file, size: None)
        losses(recorder, 5)
        recorder.text("page", "page.html")
        recorder.close("FINISHED")
    assert "1 records for MLflow are lost: the disk has no room" in caplog.text
    assert history(recorder.run_id, LOSS) == values(1, 2, 3, 4, 5)
    assert recorder.client.get_run(recorder.run_id).info.status == "FINISHED"


def test_a_file_that_the_disk_takes_only_after_the_end_does_not_hide_it(recorder, out, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        recorder.text("page", "page.html")
        recorder.record(Record("end", "status", {"status": "FINISHED"}))
    assert recorder.flush()
    assert kinds(recorder.journal)[-2:] == [("end", "status"), ("file", "page.html")]
    assert recorder.client.get_run(recorder.run_id).info.status == "FINISHED"
    assert find_journals([out]) == []
    recorder.tags({"of": "a resumed process"})
    assert find_journals([out]) == [recorder.journal.path]


# Away, and back


def test_an_outage_keeps_everything_and_sends_it_in_order(recorder, history, outage, caplog):
    losses(recorder, 0)
    assert recorder.flush()
    outage(True)
    losses(recorder, *range(1, 1203))
    recorder.tags({"told": "late"})
    assert not recorder.flush()
    assert [record.message for record in caplog.records] == [
        "MLflow did not take a record (connection refused); the training goes on, records wait on "
        "disk and are sent again"
    ]
    outage(False)
    assert recorder.flush()
    assert "answers again" in caplog.text
    assert history(recorder.run_id, LOSS) == values(*range(1203))
    assert recorder.client.get_run(recorder.run_id).data.tags["told"] == "late"
    recorder.close("FINISHED")


def test_a_batch_whose_answer_was_lost_is_not_logged_twice(recorder, history, monkeypatch):
    real = recorder.client.log_batch
    answers = iter([ConnectionError("reset by peer"), None])

    def log_batch(*args, **kwargs):
        real(*args, **kwargs)
        if error := next(answers):
            raise error

    monkeypatch.setattr(recorder.client, "log_batch", log_batch)
    losses(recorder, 1)
    assert not recorder.flush()
    assert recorder.flush()
    assert history(recorder.run_id, LOSS) == values(1)
    recorder.journal.release()


def test_metrics_go_in_batches(recorder, monkeypatch):
    sizes = []
    real = recorder.client.log_batch

    def log_batch(run_id, metrics=(), **kwargs):
        sizes.append(len(metrics))
        real(run_id, metrics=metrics, **kwargs)

    monkeypatch.setattr(recorder.client, "log_batch", log_batch)
    losses(recorder, *range(500))
    recorder.flush()
    recorder.metrics({f"k{n}": 1.0 for n in range(2300)}, 501)
    recorder.flush()
    assert sum(sizes) == 2800 and max(sizes) == 1000 and len(sizes) < 9
    recorder.journal.release()


def test_what_did_not_arrive_before_the_end_is_delivered_by_sync(
    recorder, history, outage, caplog, artifact, tmp_path
):
    (tmp_path / "a.bin").write_bytes(b"\0abc")
    outage(True)
    losses(recorder, 3)
    recorder.text("# card", "card.md")
    recorder.artifact(tmp_path / "a.bin", "kept")
    (tmp_path / "a.bin").unlink()
    recorder.close("FINISHED")
    path = recorder.journal.path
    assert f"python -m pixelis.cli.sync {path.parent}" in caplog.text
    moved = path.parent.rename(tmp_path / 'moved "é"')  # as a fresh start in the folder does
    outage(False)
    assert find_journals([tmp_path]) == [moved / path.name]
    assert deliver_journals([moved / path.name]) == (
        True,
        [f"r ({recorder.run_id}): 4 records delivered, FINISHED"],
    )
    assert history(recorder.run_id, LOSS) == values(3)
    assert artifact(recorder.run_id, "card.md") == "# card"
    assert artifact(recorder.run_id, "kept/a.bin") == "\0abc"
    assert find_journals([tmp_path]) == []
    assert not list(moved.glob(".*.files"))


def test_a_store_that_answers_after_the_end_harms_nothing(recorder, history, hanging, monkeypatch):
    reached, answer = hanging
    monkeypatch.setattr("pixelis.tracking.recorder.KILL_TIMEOUT", 0.2)
    losses(recorder, 1, 2)
    recorder.close("KILLED")  # in bounded time, although the store hangs
    assert reached.is_set()
    path = recorder.journal.path
    answer.set()
    while history(recorder.run_id, LOSS) != values(1, 2):
        pass
    ((is_delivered, lines)) = deliver_journals([path])
    assert is_delivered and "KILLED" in lines[0]
    assert history(recorder.run_id, LOSS) == values(1, 2)


def test_an_interrupt_while_it_closes_loses_nothing(recorder, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(delivery_module.Delivery, "flush", interrupt)
    losses(recorder, 1, 2)
    with pytest.raises(KeyboardInterrupt):
        recorder.close("KILLED")
    assert len(kinds(recorder.journal)) == 3
    assert recorder.journal.acquire()
    recorder.journal.release()


# Refused


def test_a_refused_record_does_not_hold_up_the_others(recorder, out, caplog):
    recorder.metrics({"good": 1.0, "acc@1": 1.0, "also/good": 2.0}, 1)
    recorder.artifact(out / "never-was.txt", "files")
    recorder.record(Record("hologram", "a", 1))  # of a newer version
    recorder.tags({"after": "yes"})
    assert recorder.flush()
    run = recorder.client.get_run(recorder.run_id)
    assert run.data.metrics == {"good": 1.0, "also/good": 2.0}
    assert run.data.tags["after"] == "yes"
    assert "metric 'acc@1' is kept in" in caplog.text
    assert "never-was.txt is not there any more" in caplog.text
    assert "Unknown kind of record 'hologram'. Choices: metric, param" in caplog.text
    recorder.close("FINISHED")
    names = [json.loads(line)["name"] for line in recorder.journal.refused_path.open()]
    assert names == ["acc@1", "files/never-was.txt", "a"]


def test_an_outage_in_the_middle_of_a_refused_batch_loses_nothing(recorder, monkeypatch):
    real, calls = recorder.client.log_batch, []

    def log_batch(run_id, metrics=(), **kwargs):
        calls.append(len(metrics))
        if len(calls) == 3:
            raise MlflowException("the server is starting")
        real(run_id, metrics=metrics, **kwargs)

    monkeypatch.setattr(recorder.client, "log_batch", log_batch)
    recorder.metrics({"a": 1.0, "b": 2.0, "c@": 3.0, "d": 4.0}, 1)
    assert not recorder.flush()
    assert recorder.flush()
    assert recorder.client.get_run(recorder.run_id).data.metrics == {"a": 1.0, "b": 2.0, "d": 4.0}
    recorder.journal.release()


def test_a_file_that_is_never_taken_holds_up_no_number_and_not_the_end(
    recorder, monkeypatch, caplog, artifact
):
    """As where the client may not write to the folder of artifacts, and no proxy does it for it."""
    real, is_closed = recorder.client.log_artifact, [True]

    def refuse(run_id, path, folder=None):
        if path.endswith("closed.txt") and is_closed[0]:
            raise PermissionError(13, "Permission denied", path)
        real(run_id, path, folder)

    monkeypatch.setattr(recorder.client, "log_artifact", refuse)
    for name in ("older", "newer"):
        recorder.text(name * 40_000, "closed.txt")
        losses(recorder, len(name))
        recorder.flush()
        losses(recorder, 6)
    recorder.text("other", "open.txt")
    recorder.close("FINISHED")
    run = recorder.client.get_run(recorder.run_id)
    assert (run.info.status, run.data.metrics[LOSS]) == ("FINISHED", 6.0)
    assert [a.path for a in recorder.client.list_artifacts(recorder.run_id)] == ["open.txt"]
    assert "Permission denied" in caplog.text and "pixelis.cli.sync" in caplog.text
    (left,) = recorder.journal.refused()
    assert left.name == "closed.txt" and recorder.journal.size < 2000
    is_closed[0] = False
    again = resumed(recorder)  # the newest of a name is offered again
    again.close("FINISHED")
    assert artifact(recorder.run_id, "closed.txt") == "newer" * 40_000
    assert not recorder.journal.refused_path.exists()


@pytest.mark.parametrize("status", [413, 404])
def test_a_file_that_a_proxy_will_never_take_is_kept_apart(recorder, monkeypatch, status):
    answer = requests.Response()
    answer.status_code = status

    def refuse(*args):
        raise requests.HTTPError(f"{status} of the proxy", response=answer)

    monkeypatch.setattr(recorder.client, "log_artifact", refuse)
    recorder.text("much", "large.html")
    losses(recorder, 1)
    assert recorder.flush()
    assert [record.name for record in recorder.journal.refused()] == ["large.html"]
    recorder.journal.release()


def test_a_refused_record_that_cannot_be_kept_is_logged(recorder, monkeypatch, caplog):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(journal_module, "write_atomic", full)
    recorder.record(Record("hologram", "a", 1))
    assert recorder.flush()
    assert "what MLflow refuses is not kept (no space left" in caplog.text
    recorder.journal.release()


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_run_that_is_deleted_while_it_trains_is_whole_once_it_is_restored(
    recorder, history, out, is_finished
):
    losses(recorder, 1)
    recorder.flush()
    recorder.client.delete_run(recorder.run_id)
    losses(recorder, 2)
    assert not recorder.flush()
    if is_finished:  # its process was killed in the moment after
        (out / "finished.json").write_text(json.dumps({"run_id": recorder.run_id}))
    else:
        recorder.close("FINISHED")
    recorder.journal.release()
    is_delivered, (line,) = deliver_journals(find_journals([out]))
    assert not is_delivered and f"mlflow runs restore --run-id {recorder.run_id}" in line
    recorder.client.restore_run(recorder.run_id)
    is_delivered, (line,) = deliver_journals(find_journals([out]))
    assert is_delivered and line.endswith("FINISHED")
    assert history(recorder.run_id, LOSS) == values(1, 2)
    assert recorder.client.get_run(recorder.run_id).info.status == "FINISHED"
    assert recorder.journal.refused() == []


# A large value, and what replaces it


def test_what_is_drawn_anew_in_a_long_outage_does_not_fill_the_disk(
    recorder, outage, out, artifact
):
    outage(True)
    for number in range(50):
        recorder.text(f"{number} {'x' * 100_000}", "figure.html")
    assert sum(path.stat().st_size for path in out.rglob("*")) < 300_000
    outage(False)
    assert recorder.flush()
    assert artifact(recorder.run_id, "figure.html")[:3] == "49 "
    recorder.close("FINISHED")
    assert not list(out.glob(".*.files"))


def test_files_are_linked_or_copied_and_texts_are_without_what_others_must_not_read(
    recorder, outage, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("MY_TOKEN", "abcdefgh12")
    folder = tmp_path / "checkpoint-3"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"\0/home/someone")
    line = "base: /home/someone/models\r\nkey abcdefgh12 \xe9\n".encode("latin-1")
    (folder / "inner" / "log").write_bytes(b"first line\n" * 9 + line)
    outage(True)
    recorder.artifact(folder, "kept")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError("cross-device")))
        recorder.artifact(folder / "weights.bin", "kept")
    (first,) = recorder.journal.path.parent.glob(".*.files/*/checkpoint-3")
    (second,) = recorder.journal.path.parent.glob(".*.files/*/weights.bin")
    assert (first / "weights.bin").samefile(folder / "weights.bin")
    assert second.read_bytes() == b"\0/home/someone" and not second.samefile(first / "weights.bin")
    shown = b"base: ~/models\r\nkey *** \xe9\n"
    assert (first / "inner" / "log").read_bytes() == b"first line\n" * 9 + shown
    recorder.journal.release()


# Killed and resumed


def test_a_resume_goes_back_to_its_checkpoint_and_no_step_comes_twice(recorder, history, outage):
    losses(recorder, *range(6))
    length = recorder.position()
    losses(recorder, 6, 7)
    recorder.flush()
    outage(True)
    losses(recorder, 8, 9)
    outage(False)
    past = Past(recorder.journal.path.parent, recorder.run_id, length)
    again = resumed(recorder, past)
    losses(again, *range(6, 12))
    again.close("FINISHED")
    assert history(recorder.run_id, LOSS) == values(*range(12))
    steps = [record.step for record, _ in again.journal.read() if record]
    assert steps[:12] == list(range(12))


def test_metrics_that_the_run_has_with_another_time_are_not_sent_again(recorder, history):
    losses(recorder, 1, 2)
    recorder.flush()
    recorder.journal.release()
    recorder.journal.path.unlink()  # and with it what is known of them here
    again = resumed(recorder)
    for step in range(1, 5):
        again.metrics({LOSS: 9.0}, step)
    again.close("FINISHED")
    assert history(recorder.run_id, LOSS) == [(1, 1.0), (2, 2.0), (3, 9.0), (4, 9.0)]


@pytest.mark.parametrize("is_new_run", [False, True])
def test_a_resume_in_another_folder_takes_the_journal_along(
    recorder, client, history, outage, out, tmp_path, is_new_run, artifact
):
    (visit := out / "visits" / "a").mkdir(parents=True)
    (visit / "weights.bin").write_bytes(b"weights")
    (gone := tmp_path / "gone.txt").write_text("sent, and gone since")
    losses(recorder, 1, 2)
    recorder.artifact(visit, "adapters/a")
    recorder.artifact(gone, "files")
    recorder.flush()
    gone.unlink()
    outage(True)
    losses(recorder, 3)
    recorder.text("y" * 100_000, "large.txt")
    length = recorder.position()
    losses(recorder, 4)
    recorder.journal.release()  # as a kill does
    outage(False)
    run = client.create_run("0") if is_new_run else client.get_run(recorder.run_id)
    again = MlflowRecorder(
        client,
        run,
        resumed=not is_new_run,
        output_dir=tmp_path / "other",
        past=Past(out, recorder.run_id, length),
    )
    claim(client, run, again.journal.path)
    client.update_run(again.run_id, status="RUNNING")
    losses(again, 4, 5)
    if not is_new_run:  # what the old folder still holds is superseded
        assert deliver_journals([recorder.journal.path]) == (True, [])
        assert client.get_run(again.run_id).info.status == "RUNNING"
    again.close("FINISHED")
    assert history(again.run_id, LOSS) == values(*range(1, 6))
    assert artifact(again.run_id, "large.txt") == "y" * 100_000
    assert artifact(again.run_id, "adapters/a/weights.bin") == "weights"
    assert client.get_run(again.run_id).info.status == "FINISHED"
