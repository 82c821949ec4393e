"""Entry points of ours side by side: each call in a process of its own, with its own log.

They are forked from a server that has imported what is slow to import (torch and transformers):
a start costs two seconds instead of ten.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from pixelis.cli.arguments import run_cli
from pixelis.data_prep.workers import start_server
from pixelis.errors import UserError

EntryPoint = Callable[[Sequence[str]], int]

POLL_SECONDS = 0.05
# A training that is told to stop finishes its step and saves; this is more than it needs.
PATIENCE_SECONDS = 120.0
# Not mlflow: its import may start threads, which a fork would lose.
PRELOADED = ("pixelis.training.sft",)
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Job:
    """A call of an entry point, and where its output goes."""

    name: str
    argv: tuple[str, ...]
    log: Path


def run_jobs(
    main: EntryPoint,
    jobs: Sequence[Job],
    *,
    num_workers: int,
    environment: Mapping[str, str],
    on_done: Callable[[Job, float], None],
    on_failed: Callable[[Job, str], None] | None = None,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Call an entry point for each job, `num_workers` at a time, in their order.

    Each has its share of the cores, unless OMP_NUM_THREADS is set. When this process is interrupted
    or killed, they are told to stop.

    Args:
        main: of the entry point; importable by its name.
        jobs: what to run.
        num_workers: how many side by side.
        environment: variables on top of this process's.
        on_done: called with a job that succeeded and its seconds.
        on_failed: called with a job that failed and why; the others go on. None: a failure is
            raised.
        on_poll: called all the while, every POLL_SECONDS.

    Raises:
        UserError: when a job fails, with the last line of its log; the others are stopped first.
    """
    prepare(num_workers)
    variables = {THREADS: _share(num_workers), **os.environ, **environment}
    context = multiprocessing.get_context("forkserver")
    waiting = list(jobs)
    running: dict[Job, tuple[BaseProcess, float]] = {}
    with _stopped_at_the_end(running):
        while waiting or running:
            while waiting and len(running) < num_workers:
                job = waiting.pop(0)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                process: BaseProcess = context.Process(
                    target=_call, args=(main, job, variables), name=job.name
                )
                process.start()
                running[job] = (process, time.monotonic())
            time.sleep(POLL_SECONDS)
            on_poll()
            for job, (process, began) in list(running.items()):
                if process.is_alive():
                    continue
                del running[job]
                if process.exitcode == 0:
                    on_done(job, time.monotonic() - began)
                    continue
                why = (
                    f"{job.name} ended with exit code {process.exitcode}: "
                    f"{_last_line(job.log)} (all of it: {job.log})"
                )
                if on_failed is None:
                    raise UserError(why)
                on_failed(job, why)


def prepare(num_workers: int) -> None:
    """Start the server that jobs are forked from, before anything else starts it for itself.

    What is imported there, and the number of threads, stays as it is at the start.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    before = os.environ.get(THREADS)
    os.environ[THREADS] = _share(num_workers)
    try:
        start_server()
    finally:
        if before is None:
            del os.environ[THREADS]


def _share(num_workers: int) -> str:
    """Threads of each of so many processes: the user's number, else a share of the cores."""
    return os.environ.get(THREADS) or str(max(1, (os.cpu_count() or 1) // num_workers))


def _call(main: EntryPoint, job: Job, variables: Mapping[str, str]) -> None:
    os.setsid()  # Ctrl-C reaches the first process alone, which tells each of the others once
    os.environ.clear()
    os.environ.update(variables)
    with job.log.open("ab") as log, open(os.devnull, "rb") as nothing:
        for number, file in ((0, nothing), (1, log), (2, log)):
            os.dup2(file.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    code = run_cli(main, list(job.argv))
    sys.stdout.flush()
    raise SystemExit(code)


def _stop_with_parent() -> None:
    # A parent that was killed tells nobody. By the pipe between the two, not by a process number.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _stopped_at_the_end(running: dict[Job, tuple[BaseProcess, float]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process, _ in running.values():
            process.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for process, _ in running.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else "it said nothing"
