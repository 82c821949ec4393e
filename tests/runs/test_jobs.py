import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from pixelis.errors import UserError
from pixelis.runs.jobs import Job, run_jobs

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
ENTRY_POINT = "tests.runs.entry_point"


def job(folder, name, *argv):
    return Job(name, ENTRY_POINT, tuple(map(str, argv)), folder / f"{name}.txt")


def run(jobs, num_workers=2, **environment):
    """Run jobs until one fails; return the names in the order in which they ended."""
    done = []
    with closing(run_jobs(jobs, num_workers=num_workers, environment=environment)) as ended:
        for job, failure, _ in ended:
            if failure is not None:
                raise UserError(failure)
            done.append(job.name)
    return done


def test_jobs_run_side_by_side_with_their_own_logs(tmp_path):
    # Each waits for the other's sign: one after the other they would never end.
    jobs = [job(tmp_path, a, "meet", tmp_path / a, tmp_path / b) for a, b in ("xy", "yx")]
    assert sorted(run(jobs)) == ["x", "y"]
    assert (tmp_path / "x.txt").read_text() == "met\n"


def test_one_at_a_time_is_in_order(tmp_path):
    jobs = [job(tmp_path, name, "say", name) for name in "cab"]
    assert run(jobs, num_workers=1) == ["c", "a", "b"]


def test_each_has_its_share_of_the_cores_and_what_it_is_given(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ("OMP_NUM_THREADS", "COLOUR")
    run([job(tmp_path, "a", "variables", *names)], num_workers=1, COLOUR="blue")
    assert (tmp_path / "a.txt").read_text() == f"{os.cpu_count()} blue\n"
    run([job(tmp_path, "b", "variables", *names)], num_workers=2 * os.cpu_count(), COLOUR="red")
    assert (tmp_path / "b.txt").read_text() == "1 red\n"
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_threads_setting_of_the_user_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run([job(tmp_path, "a", "variables", "OMP_NUM_THREADS")])
    assert (tmp_path / "a.txt").read_text() == "7\n"


def test_a_job_that_fails_ends_the_others_and_is_quoted(tmp_path):
    began = time.monotonic()
    with pytest.raises(UserError, match="bad ended with exit code 2: the disk is full .*bad.txt"):
        run([job(tmp_path, "slow", "sleep"), job(tmp_path, "bad", "fail", "the disk is full")])
    assert time.monotonic() - began < 30


def test_a_job_that_ends_without_a_word(tmp_path):
    with pytest.raises(UserError, match="exit code 3: it said nothing"):
        run([job(tmp_path, "bad", "leave", 3)])


def test_interrupted_it_tells_its_jobs_to_stop_and_waits_for_them(tmp_path):
    log = tmp_path / "a.txt"

    def interrupt():
        while not log.exists() or "up" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    # Whoever started these tests in the background made them deaf to Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run([job(tmp_path, "a", "save")])
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.read_text() == "up\nsaved\n"


def test_when_it_is_killed_its_jobs_are_told_to_stop(tmp_path):
    log = tmp_path / "a.txt"
    code = (
        "import pathlib; from pixelis.runs.jobs import Job, run_jobs\n"
        f"job = Job('a', {ENTRY_POINT!r}, ('save',), pathlib.Path({str(log)!r}))\n"
        "list(run_jobs([job], num_workers=1, environment={}))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not log.exists() or "up" not in log.read_text():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.wait()
    while log.read_text() != "up\nsaved\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
