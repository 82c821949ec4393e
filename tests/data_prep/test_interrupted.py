"""data-prep is stopped in the middle: by SIGKILL, by Ctrl-C, with a reader looking on."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pixelis.data_prep.prepare import ROWS_FILE

pytestmark = pytest.mark.integration
FILES = {
    *("cota_simple.parquet", "cota_medium.parquet", "cota_hard.parquet"),
    *("summary.json", "difficulty.png", "examples.png"),
}
TIMEOUT = 120  # seconds on a busy machine


class Runs:
    """Starts and follows runs in the helper process."""

    def __init__(self, errors):
        self.errors = errors
        self.helper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked_prepare.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
        )

    def start(self, out, **settings):
        self.helper.stdin.write(json.dumps({"out": str(out), **settings}) + "\n")
        self.helper.stdin.flush()
        return int(self.helper.stdout.readline())

    def end(self):
        return int(self.helper.stdout.readline())

    def complete(self, out, **settings):
        self.start(out, **settings)
        assert self.end() == 0
        return digests(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    started = Runs(tmp_path_factory.mktemp("runs") / "errors")
    yield started
    started.helper.stdin.close()
    started.helper.wait(TIMEOUT)


def digests(folder):
    """What a reader gets who opens the folder once and takes its time; None where it is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        found = {}
        for name in sorted(os.listdir(handle)):
            with open(os.open(name, os.O_RDONLY, dir_fd=handle), "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
        return found
    except FileNotFoundError:  # taken away while it was read: by then another is in its place
        return digests(folder)
    finally:
        os.close(handle)


def wait_for(condition):
    ends = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.002)


def staged(folder, name=""):
    return [path for path in folder.glob(f".cota.*.new/{name}*") if path.stat().st_size]


def alive(processes):
    return [one for one in processes if one.is_running() and one.status() != "zombie"]


@pytest.fixture(scope="module")
def old_and_new(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("complete")
    sets = []
    for seed in (0, 1):
        made = runs.complete(folder / "cota", num_samples=6, seed=seed, num_workers=1)
        sets.append(made)
        if seed == 0:
            shutil.copytree(folder / "cota", folder / "old")
    assert set(sets[0]) == set(sets[1]) == FILES and sets[0] != sets[1]
    return folder / "old", sets


@pytest.mark.parametrize("moment", [ROWS_FILE, "cota_hard", "difficulty.png", "summary.json"])
def test_killed_at_any_moment_it_leaves_all_old_or_all_new_and_runs_again(
    runs, old_and_new, tmp_path, moment
):
    (old, complete), out = old_and_new, tmp_path / "cota"
    shutil.copytree(old, out)
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            seen.append(digests(out))
            time.sleep(0.001)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        child = runs.start(out, num_samples=6, seed=1, num_workers=1)
        wait_for(lambda: staged(tmp_path, moment))
        os.kill(child, signal.SIGKILL)
        assert runs.end() == -signal.SIGKILL
        assert digests(out) in complete
        assert runs.complete(out, num_samples=6, seed=1, num_workers=1) == complete[1]
    finally:
        stop.set()
        reader.join()
    assert {path.name for path in tmp_path.iterdir()} == {"cota"}
    assert seen and all(found in complete for found in seen)


def test_no_worker_outlives_a_killed_run_and_it_runs_again(runs, tmp_path):
    out = tmp_path / "cota"
    child = runs.start(out, num_samples=4000, num_workers=2)
    wait_for(lambda: staged(tmp_path, ROWS_FILE))
    wait_for(lambda: staged(tmp_path, ROWS_FILE)[0].stat().st_size > 100_000)
    workers = psutil.Process(child).children(recursive=True)
    assert len(workers) >= 4, "a server, its tracker and two workers"
    os.kill(child, signal.SIGKILL)
    assert runs.end() == -signal.SIGKILL
    # A worker ends when it has sent the result of its last items.
    assert psutil.wait_procs(workers, timeout=20)[1] == [] or not alive(workers)
    assert not out.exists()
    assert set(runs.complete(out, num_samples=6, num_workers=1)) == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"cota"}


@pytest.mark.parametrize("moment", ["starting", "working"])
def test_ctrl_c_ends_it_soon_and_leaves_nothing(runs, tmp_path, moment):
    out = tmp_path / "cota"
    # A worker whose parent was killed just now may say so; after Ctrl-C nobody may.
    shown_before = len(runs.errors.read_text(encoding="utf-8"))
    child = runs.start(out, num_samples=4000, num_workers=2)
    # Seen from outside: the folder to write in stands before the first worker starts.
    wait_for(lambda: list(tmp_path.glob(".cota.*.new")))
    if moment == "working":
        wait_for(lambda: staged(tmp_path, ROWS_FILE))
        wait_for(lambda: staged(tmp_path, ROWS_FILE)[0].stat().st_size > 100_000)
    workers = psutil.Process(child).children(recursive=True)
    pressed = time.monotonic()
    os.killpg(child, signal.SIGINT)
    assert runs.end() == 130
    assert time.monotonic() - pressed < 3
    psutil.wait_procs(workers, timeout=3)
    assert not alive(workers)
    assert list(tmp_path.iterdir()) == []
    shown = runs.errors.read_text(encoding="utf-8")[shown_before:]
    assert "Traceback" not in shown, shown
