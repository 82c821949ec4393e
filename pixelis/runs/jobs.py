"""Entry points run in parallel, each in a process of its own with its own log.

`python -m pixelis.runs.jobs MODULE ARGUMENTS` runs one job like `python -m MODULE`, but stops it
when the process that started it ends.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A training that is asked to stop finishes its step and saves a checkpoint within this time.
STOP_SECONDS = 120.0
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Job:
    """One call of an entry point."""

    name: str  # for messages
    module: str  # module of the entry point, such as `pixelis.cli.sft`
    argv: tuple[str, ...]
    log: Path  # file to which the output is appended


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_workers: int,
    environment: Mapping[str, str],
    on_poll: Callable[[], None] = lambda: None,
    poll_seconds: float = 0.05,
) -> Generator[tuple[Job, str | None, float], None, None]:
    """Run jobs in their order, `num_workers` at a time, while the iterator is read.

    Each job uses an equal share of the cores, unless OMP_NUM_THREADS is set. When the iterator is
    left, also by an error or Ctrl-C, the running jobs are asked to stop (SIGTERM) and waited for;
    when this process is killed, they are asked to stop too.

    The environment variables are added to ours, and `on_poll` is called between two looks at the
    running jobs, every `poll_seconds`.

    Yields:
        Each job that ended; why it failed, with the last line of its log, or None; its seconds.
    """
    share = str(max(1, (os.cpu_count() or 1) // num_workers))
    variables = {THREADS: share, **os.environ, **environment}
    waiting = list(jobs)
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                job = waiting.pop(0)
                running[job] = _start(job, variables), time.monotonic()
            time.sleep(poll_seconds)
            on_poll()
            for job, (process, began) in list(running.items()):
                if (code := process.poll()) is None:
                    continue
                del running[job]
                reason = f"{job.name} ended with exit code {code}: {_last_line(job.log)}"
                failure = f"{reason} (all of it: {job.log})" if code else None
                yield job, failure, time.monotonic() - began
    finally:
        _stop([process for process, _ in running.values()])


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


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return last.removeprefix("error: ")


def _stop_with_parent() -> None:
    # Wait for the end of the pipe; the parent's process id may belong to another process by now.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
