"""Several command lines of ours side by side: each in a process of its own, with its own log."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pixelis.errors import UserError

POLL_SECONDS = 0.1
# A training that is told to stop finishes its step and saves; this is more than it needs.
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Job:
    """A command line and where its output goes."""

    name: str
    command: tuple[str, ...]
    log: Path


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_workers: int,
    environment: Mapping[str, str],
    on_done: Callable[[Job, float], None],
) -> None:
    """Run jobs, `num_workers` at a time, in their order; what is interrupted is told to stop.

    Args:
        jobs: what to run.
        num_workers: how many side by side. Each gets its share of the cores, unless
            OMP_NUM_THREADS is set.
        environment: variables on top of this process's.
        on_done: called with a job that succeeded and its seconds.

    Raises:
        UserError: when a job fails, with the last line of its log; the others are stopped first.
    """
    threads = max(1, (os.cpu_count() or 1) // num_workers)
    variables = {"OMP_NUM_THREADS": str(threads), **os.environ, **environment}
    waiting = list(jobs)
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    with _stopped_at_the_end(running):
        while waiting or running:
            while waiting and len(running) < num_workers:
                job = waiting.pop(0)
                running[job] = (_start(job, variables), time.monotonic())
            time.sleep(POLL_SECONDS)
            for job, (process, began) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[job]
                if code != 0:
                    raise UserError(
                        f"{job.name} ended with exit code {code}: {_last_line(job.log)} "
                        f"(all of it: {job.log})"
                    )
                on_done(job, time.monotonic() - began)


def _start(job: Job, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            # Ctrl-C reaches us alone, and we tell each of them once.
            start_new_session=True,
        )


@contextmanager
def _stopped_at_the_end(
    running: "dict[Job, tuple[subprocess.Popen[bytes], float]]",
) -> Iterator[None]:
    try:
        yield
    finally:
        for process, _ in running.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for process, _ in running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else "it said nothing"
