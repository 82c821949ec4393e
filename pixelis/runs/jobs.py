"""Entry points run in parallel, each in a process of its own with its own log.

`python -m pixelis.runs.jobs MODULE ARGUMENTS` runs one job like `python -m MODULE`, but stops it
when the process that started it ends.
"""

import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pixelis.errors import UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
# A training that is asked to stop finishes its step and saves a checkpoint within this time.
STOP_SECONDS = 120.0
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Job:
    """One call of an entry point.

    Attributes:
        name: Name for messages.
        module: Module of the entry point, such as `pixelis.cli.sft`.
        argv: Arguments of the command line.
        log: File to which the output is appended.
    """

    name: str
    module: str
    argv: tuple[str, ...]
    log: Path


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_workers: int,
    environment: Mapping[str, str],
    on_done: Callable[[Job, float], None] | None = None,
    on_failed: Callable[[Job, str], None] | None = None,
    on_poll: Callable[[], None] | None = None,
) -> None:
    """Run jobs in their order, `num_workers` at a time.

    Each job uses an equal share of the cores, unless OMP_NUM_THREADS is set. When this process is
    interrupted or killed, the jobs receive SIGTERM.

    Args:
        jobs: The jobs.
        num_workers: Number of jobs that run in parallel.
        environment: Environment variables in addition to this process's.
        on_done: Called with a job that succeeded and its seconds.
        on_failed: Called with a job that failed and the reason, after which the others continue. By
            default a failure is raised.
        on_poll: Called every POLL_SECONDS.

    Raises:
        UserError: When a job fails, with the last line of its log; the others are stopped first.
    """
    share = str(max(1, (os.cpu_count() or 1) // num_workers))
    variables = {THREADS: share, **os.environ, **environment}
    waiting = list(jobs)
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    with _stopped_at_the_end(running):
        while waiting or running:
            while waiting and len(running) < num_workers:
                job = waiting.pop(0)
                running[job] = _start(job, variables), time.monotonic()
            time.sleep(POLL_SECONDS)
            if on_poll is not None:
                on_poll()
            for job, (process, began) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[job]
                if code == 0:
                    if on_done is not None:
                        on_done(job, time.monotonic() - began)
                    continue
                reason = (
                    f"{job.name} ended with exit code {code}: "
                    f"{_last_line(job.log)} (all of it: {job.log})"
                )
                if on_failed is None:
                    raise UserError(reason)
                on_failed(job, reason)


def log_above_bar(line: str) -> None:
    """Log a line above a progress bar."""
    with tqdm.external_write_mode(file=sys.stdout):
        logger.info(line)


def _start(job: Job, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pixelis.runs.jobs", job.module, *job.argv],
            env=variables,
            stdin=subprocess.PIPE,  # closed by our end, which stops the job (`_stop_with_parent`)
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that Ctrl-C reaches only this process, which stops them
        )


@contextmanager
def _stopped_at_the_end(
    running: "dict[Job, tuple[subprocess.Popen[bytes], float]]",
) -> Iterator[None]:
    try:
        yield
    finally:
        for process, _ in running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process, _ in running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_line(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def _stop_with_parent() -> None:
    # Wait for the end of the pipe; the parent's process id may belong to another process by now.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
