import os
import signal
import sys
import threading
import time

import pytest

from pixelis.cli.processes import Job, run_jobs
from pixelis.errors import UserError


def job(folder, name, code):
    return Job(name, (sys.executable, "-c", code), folder / f"{name}.txt")


def run(jobs, num_workers=2, **environment):
    done = []
    run_jobs(
        jobs,
        num_workers=num_workers,
        environment=environment,
        on_done=lambda job, seconds: done.append(job.name),
    )
    return done


def test_jobs_run_side_by_side_with_their_own_logs(tmp_path):
    # Each waits for the other's sign: one after the other they would never end.
    code = (
        "import pathlib, time; here = pathlib.Path(r'{folder}'); (here / '{own}').touch()\n"
        "while not (here / '{other}').exists(): time.sleep(.01)\n"
        "print('{own} is done')"
    )
    jobs = [
        job(tmp_path, own, code.format(folder=tmp_path, own=own, other=other))
        for own, other in (("a", "b"), ("b", "a"))
    ]
    assert sorted(run(jobs)) == ["a", "b"]
    assert (tmp_path / "a.txt").read_text() == "a is done\n"


def test_one_at_a_time_is_in_order(tmp_path):
    jobs = [job(tmp_path, name, "pass") for name in "cab"]
    assert run(jobs, num_workers=1) == ["c", "a", "b"]


def test_each_has_its_share_of_the_cores_and_what_it_is_given(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['COLOUR'])"
    run([job(tmp_path, "a", code)], num_workers=1, COLOUR="blue")
    assert (tmp_path / "a.txt").read_text() == f"{os.cpu_count()} blue\n"
    run([job(tmp_path, "b", code)], num_workers=2 * os.cpu_count(), COLOUR="red")
    assert (tmp_path / "b.txt").read_text() == "1 red\n"


def test_a_threads_setting_of_the_user_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run([job(tmp_path, "a", "import os; print(os.environ['OMP_NUM_THREADS'])")])
    assert (tmp_path / "a.txt").read_text() == "7\n"


SLOW = "import signal, sys, time; print('up', flush=True); time.sleep(60)"


def test_a_job_that_fails_ends_the_others_and_is_quoted(tmp_path):
    code = "import sys; print('error: the disk is full', file=sys.stderr); sys.exit(2)"
    began = time.monotonic()
    with pytest.raises(UserError, match="bad ended with exit code 2: the disk is full .*bad.txt"):
        run([job(tmp_path, "slow", SLOW), job(tmp_path, "bad", code)])
    assert time.monotonic() - began < 30


def test_a_job_that_fails_without_a_word(tmp_path):
    with pytest.raises(UserError, match="exit code 3: it said nothing"):
        run([job(tmp_path, "bad", "raise SystemExit(3)")])


def test_interrupted_it_tells_its_jobs_to_stop_and_waits_for_them(tmp_path):
    code = (
        "import signal, sys, time\n"
        "def stop(*_): time.sleep(.3); print('saved', flush=True); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop); print('up', flush=True); time.sleep(60)"
    )
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
            run([job(tmp_path, "a", code)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.read_text() == "up\nsaved\n"
