"""The file of undelivered records, and the files that records are about."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.tracking import spool as spool_module
from pixelis.tracking.delivery import Record
from pixelis.tracking.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "out", "r1")


def metric(step: int) -> Record:
    return Record("metric", "train/loss", 0.5, step, 1_700_000_000_000)


def test_records_come_back_in_order_and_the_file_goes(spool: Spool) -> None:
    assert spool.load() == []
    spool.append([metric(1)])
    spool.append([metric(2), Record("text", "é.md", "line\nline\u2028\udc80")])
    assert spool.load() == [metric(1), metric(2), Record("text", "é.md", "line\nline\u2028\udc80")]
    assert len(spool.path.read_text().splitlines()) == 3
    spool.rewrite([metric(2)])
    assert spool.load() == [metric(2)]
    spool.remove()
    assert list(spool.path.parent.iterdir()) == []


def test_a_line_that_a_kill_has_torn_is_left_out_and_not_written_on(spool: Spool) -> None:
    spool.append([metric(1)])
    with spool.path.open("a") as file:
        file.write(metric(2).to_json()[:30])
    spool.append([metric(3)])
    with spool.path.open("a") as file:
        file.write('[1]\n{"kind": "metric", "surprise": 1}\n')
    assert spool.load() == [metric(1), metric(3)]


def test_two_do_not_hold_it_at_once(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spool_module, "IN_USE_SECONDS", 0.0)
    other = Spool(spool.path.parent, "r1")
    assert spool.acquire() and spool.acquire()
    assert not other.acquire()
    for write in (other.append, other.rewrite):
        with pytest.raises(OSError, match="r1.jsonl is in use by another process"):
            write([metric(1)])
    spool.release()
    assert other.acquire()
    other.release()
    assert list(spool.path.parent.iterdir()) == []


def test_the_lock_of_a_process_that_is_killed_is_free_though_its_child_lives(spool: Spool) -> None:
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from pixelis.tracking.spool import Spool\n"
        f"spool = Spool(Path({str(spool.path.parent)!r}), 'r1')\nassert spool.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(60)\n    os._exit(0)\n"
        "print(child, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as done:
        assert done.stdout
        child = int(done.stdout.readline())
        assert done.wait() == -9
        try:
            assert spool.acquire()
        finally:
            os.kill(child, 9)
    spool.release()


def test_what_is_held_outlives_the_original(spool: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "inner" / "a.json").write_text("{}")
    held, files = spool.hold(folder)
    assert held.name == "checkpoint-3"
    assert held.parent == Path(files)
    assert (held / "weights.bin").stat().st_ino == (folder / "weights.bin").stat().st_ino
    (folder / "weights.bin").unlink()
    assert (held / "weights.bin").read_bytes() == b"weights"
    assert (held / "inner" / "a.json").read_text() == "{}"
    spool.forget(files)
    assert not held.exists()
    spool.remove()
    assert list(spool.path.parent.iterdir()) == []


def test_it_is_copied_where_links_cannot_be(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: str) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(spool_module.os, "link", refuse)
    (tmp_path / "a.bin").write_bytes(b"a")
    held, _ = spool.hold(tmp_path / "a.bin")
    assert held.read_bytes() == b"a"
    assert held.stat().st_ino != (tmp_path / "a.bin").stat().st_ino


def test_what_cannot_be_held_is_named_as_it_is(spool: Spool, tmp_path: Path) -> None:
    missing = tmp_path / "never-was.txt"
    assert spool.hold(missing) == (missing, "")
    blocked = Spool(tmp_path / "file", "r1")
    (tmp_path / "file").write_text("not a folder")
    assert blocked.hold(tmp_path) == (tmp_path, "")


@pytest.mark.parametrize(
    ("name", "lines"),
    [("a.json", 1), ("training.log", 3), ("no_suffix", 1), ("long.txt", 200_000)],
)
def test_texts_are_held_without_what_is_nobodys_business(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lines: int
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("MY_TOKEN", "abcdefgh12")
    line = "base: /home/someone/models\r\nkey abcdefgh12 \xe9\n".encode("latin-1")
    (tmp_path / name).write_bytes(b"first line\n" * lines + line)
    held, _ = spool.hold(tmp_path / name)
    shown = b"base: ~/models\r\nkey *** \xe9\n"
    assert held.read_bytes() == b"first line\n" * lines + shown
    assert b"someone" in (tmp_path / name).read_bytes()


def test_what_is_no_text_is_held_as_it_is(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "a.bin").write_bytes(b"\0/home/someone")
    held, _ = spool.hold(tmp_path / "a.bin")
    assert held.samefile(tmp_path / "a.bin")


def test_files_whose_record_arrived_or_never_was_written_are_not_delivered_again(
    spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    arrived, waits, unwritten = (spool.hold(tmp_path / "a.bin") for _ in range(3))
    records = [Record("file", "kept", str(held), files=files) for held, files in (arrived, waits)]
    spool.append(records)
    spool.forget(arrived[1])  # a kill came before the file of records went
    assert spool.load() == records[1:]
    assert not unwritten[0].exists()
    assert waits[0].exists()


def test_files_are_found_where_the_folder_was_moved_to(spool: Spool, tmp_path: Path) -> None:
    """A fresh start moves what an earlier training left in its output_dir."""
    (tmp_path / "a.bin").write_bytes(b"a")
    held, files = spool.hold(tmp_path / "a.bin")
    spool.append([Record("file", "kept", str(held), files=files), metric(1)])
    spool.release()
    (tmp_path / "out").rename(tmp_path / 'moved "é"')
    record, _ = Spool(tmp_path / 'moved "é"', "r1").load()
    assert Path(record.value).read_bytes() == b"a"
    assert Path(record.value).is_relative_to(tmp_path / 'moved "é"')
    assert Path(record.value).parent == Path(record.files)


def test_what_mlflow_refuses_is_kept_apart(spool: Spool) -> None:
    spool.refuse([metric(1)])
    spool.refuse([metric(2)])
    assert len(spool.refused.read_text().splitlines()) == 2
    assert spool.load() == []
