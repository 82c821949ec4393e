"""Which process writes to a run, told in its tags; and the end of runs whose process is no more.

A run whose process is killed stays RUNNING in MLflow: nobody is left to end it. The next start on
the same machine does. Of another machine's runs nothing is known here, and nothing is changed.
"""

import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pixelis.tracking.visits import VISIT_TAG

PROCESS_TAG = "pixelis.process"  # JSON: a list of what `this_process` gives
ALIVE_TAG = "pixelis.alive"  # seconds since 1970 of the last sign of life
DIED_TAG = "pixelis.died"  # why a run was ended from outside
HEARTBEAT_SECONDS = 60.0
# Without a sign of life, before this machine was started, after which a run of before has died.
GRACE_SECONDS = 600.0
MOST = 1000  # runs that are looked at
MOST_DIGITS = 11  # of a time in seconds since 1970
MOST_PID = 2**31 - 1
CLOCK_SECONDS = 5.0  # that two readings of a process's start may differ, where it is a time


def this_process() -> dict[str, Any]:
    """What tells this process from all others, on this machine and after it was started again."""
    return {
        "host": _host(),
        "machine": _machine(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "pids": _pid_space(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def is_dead(process: Mapping[str, Any], last_seen: float) -> bool:
    """Whether a process has surely ended; one that cannot be seen from here has not.

    Args:
        process: of `this_process`.
        last_seen: seconds since 1970 of its last sign of life.
    """
    here = this_process()
    if process.get("host") != here["host"] or process.get("machine") != here["machine"]:
        return False
    if process.get("boot") != here["boot"]:
        # Names of hosts come twice, identities of machines do not.
        silent = last_seen < min(psutil.boot_time(), time.time() - GRACE_SECONDS)
        return bool(here["machine"]) and silent
    if process.get("pids") != here["pids"]:  # another container: its numbers mean nothing here
        return False
    started = _started(process["pid"])
    return started is None or abs(started - process["started"]) > CLOCK_SECONDS


def claim(client: MlflowClient, run: Run, *, shared: bool = False) -> None:
    """Say in a run's tags that this process writes to it.

    Args:
        client: Where to.
        run: The run.
        shared: Other processes may be writing to it too: they stay in the list.
    """
    others = _processes(run) if shared else []
    last_seen = _last_seen(run)
    kept = [each for each in others if not is_dead(each, last_seen)]
    client.set_tag(run.info.run_id, PROCESS_TAG, json.dumps([*kept, this_process()]))


def claim_tags() -> dict[str, str]:
    """The tag of `claim`, for a run that is yet to be made."""
    return {PROCESS_TAG: json.dumps([this_process()])}


@contextmanager
def signs_of_life(tell: Callable[[Mapping[str, str]], None]) -> Iterator[None]:
    """Tell the time now and then while the block is at work, in the tag of the last sign of life.

    Args:
        tell: sets tags.
    """
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            tell({ALIVE_TAG: str(int(time.time()))})

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def end_dead_runs(client: MlflowClient, say: Callable[[str], None], *, but: str = "") -> None:
    """End the runs of this machine that are RUNNING in MLflow and whose processes are no more.

    They become KILLED, with the tag `pixelis.died`; a resume sets them RUNNING again.

    Args:
        client: Where to look.
        say: Takes a line a run.
        but: The id of a run that is left alone: this process's own.
    """
    places = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ACTIVE_ONLY)]
    host = json.dumps(_host())
    query = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '%\"host\": {host}%'"
    for run in client.search_runs(places, query, max_results=MOST):
        # Asked again: it may have been taken up, or have ended, after it was listed.
        if run.info.run_id != but and _has_died(run) and _has_died(client.get_run(run.info.run_id)):
            _end(client, run)
            say(f"{run.info.run_name} ({run.info.run_id}) was killed: it is KILLED in MLflow now")


def _has_died(run: Run) -> bool:
    processes, last_seen = _processes(run), _last_seen(run)
    if run.info.status != "RUNNING" or not processes:
        return False
    return all(is_dead(process, last_seen) for process in processes)


def _end(client: MlflowClient, run: Run) -> None:
    run_id, last = run.info.run_id, _processes(run)[-1]
    ended = int(_last_seen(run) * 1000)
    why = f"its process {last['pid']} on {last['host']} is no more, and has not said how it ended"
    client.set_tag(run_id, DIED_TAG, why)
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and attributes.status = 'RUNNING'"
    for child in client.search_runs([run.info.experiment_id], query):
        if VISIT_TAG in child.data.tags:  # others have processes of their own
            client.set_terminated(child.info.run_id, "KILLED", ended)
    client.set_terminated(run_id, "KILLED", ended)


def _processes(run: Run) -> list[dict[str, Any]]:
    try:
        found = json.loads(run.data.tags.get(PROCESS_TAG, "[]"))
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) and all(map(_is_ours, found)) else []


def _is_ours(process: Any) -> bool:
    """Whether a value of the tag is of `this_process`: anybody may write to a run."""
    if not isinstance(process, dict) or not isinstance(process.get("host"), str):
        return False
    pid, started = process.get("pid", 0), process.get("started", -1)
    is_time = type(started) in (int, float) and 0 <= started < 2**63
    return type(pid) is int and 0 < pid <= MOST_PID and is_time


def _last_seen(run: Run) -> float:
    """Seconds since 1970 of a run's last heartbeat, or of its newest number, or of its start."""
    told = run.data.tags.get(ALIVE_TAG, "0")
    is_time = told.isdecimal() and len(told) <= MOST_DIGITS
    times = [float(told) if is_time else 0.0, run.info.start_time / 1000]
    times += [metric.timestamp / 1000 for metric in run.data._metric_objs]
    return float(max(times))


def _host() -> str:
    """This machine's name, of letters that need no care in a query."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())


def _started(pid: int) -> float | None:
    """When a process was started, in the system's own count; None where there is none."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # In ticks since the machine's start: unlike a time, nobody sets it.
        text = _read(f"/proc/{pid}/stat")
        return float(text.rpartition(")")[2].split()[19]) if text else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return float(process.create_time())


def _pid_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _machine() -> str:
    """This machine's identity, hashed: it is to be told to nobody as it is (machine-id(5))."""
    identity = _read("/etc/machine-id")
    return hashlib.sha256(f"pixelis {identity}".encode()).hexdigest()[:16] if identity else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
