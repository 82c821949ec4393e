"""Detection of processes that write to a run and have died.

On one machine the lock of a process's journal decides: the kernel frees it when the process ends.
Across machines a heartbeat decides, a tag that a writing process renews: if it has not changed for
`GRACE_SECONDS`, while the store answered the observer all the time, the process has stopped.
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

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from pixelis.tracking.journal import Journal
from pixelis.tracking.privacy import public

PROCESS_TAG = "pixelis.process"  # JSON: a list of results of `this_process`
ALIVE_TAG = "pixelis.alive"  # seconds since 1970 of the last heartbeat
DIED_TAG = "pixelis.died"  # why a run was ended from outside
HEARTBEAT_SECONDS = 60.0
GRACE_SECONDS = 600.0
MAX_RUNS = 1000  # runs that one query returns


def this_process(journal: Path) -> dict[str, Any]:
    """Return the machine and id of this process, and the journal whose lock it holds."""
    return {**_here(), "pid": os.getpid(), "journal": public(str(journal.resolve()))}


def _here() -> dict[str, Any]:
    """Return values that are equal for all processes that see the same files and locks."""
    return {
        # Only characters that need no quoting in a query.
        "host": re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()),
        "machine": _machine(),
        "mounts": _mounts(),
        "uid": os.getuid(),
    }


def writers(run: Run) -> list[dict[str, Any]]:
    """Return the processes that a run's tag names; none if another program wrote the tag."""
    try:
        value = json.loads(run.data.tags.get(PROCESS_TAG, "[]"))
    except (ValueError, RecursionError):
        return []
    is_ours = isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("journal"), str) for each in value
    )
    return value if is_ours else []


def is_dead(writer: Mapping[str, Any]) -> bool | None:
    """Return whether a process has ended, or None if that cannot be seen from here."""
    if any(writer.get(key) != value for key, value in _here().items()):
        return None
    journal = journal_of(writer)
    if not journal.path.is_file():
        return True  # a live process keeps its journal at the path in the tag
    try:
        is_free = journal.acquire()
    except OSError:  # a folder that may not be written to
        return None
    if is_free:
        journal.release()
    return is_free


def journal_of(writer: Mapping[str, Any]) -> Journal:
    """Return the journal that a process wrote."""
    return Journal(Path(writer["journal"]).expanduser())


def claim(client: MlflowClient, run: Run, journal: Path, *, shared: bool = False) -> None:
    """Name this process in the tag of the processes that write to a run.

    Args:
        client: Client of the store.
        run: The run.
        journal: Path of this process's journal.
        shared: Whether other processes may write to the run too; they stay in the tag.
    """
    others = [each for each in writers(run) if not is_dead(each)] if shared else []
    client.set_tag(run.info.run_id, PROCESS_TAG, json.dumps([*others, this_process(journal)]))


def running_runs(client: MlflowClient) -> list[Run]:
    """Return the runs that are RUNNING and that processes of this project write to."""
    experiments = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
    query = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '[%'"
    ids = [experiment.experiment_id for experiment in experiments]
    return list(client.search_runs(ids, query, max_results=MAX_RUNS))


class SilentRuns:
    """A search for runs of other machines whose heartbeat has stopped."""

    def __init__(self) -> None:
        """Begin without observations."""
        self._seen: dict[str, tuple[str, float]] = {}  # run -> heartbeat and when it was first seen

    def look(self, client: MlflowClient, now: float) -> list[Run]:
        """Return the runs whose heartbeat has not changed for long; call this regularly.

        Args:
            client: Client of the store.
            now: Seconds of a monotonic clock.
        """
        try:
            runs = running_runs(client)
        # The store may be a server, a database or a folder: each fails with its own exceptions.
        except Exception:
            self._seen.clear()  # a heartbeat cannot be recorded while the store is away
            return []
        silent = []
        for run in runs:
            verdicts = [is_dead(writer) for writer in writers(run)]
            if not verdicts or False in verdicts:
                continue
            beat = run.data.tags.get(ALIVE_TAG, "")
            known, since = self._seen.get(run.info.run_id, (None, now))
            if known != beat:
                self._seen[run.info.run_id] = beat, now
            elif now - since >= GRACE_SECONDS:
                silent.append(run)
        return silent


@contextmanager
def heartbeats(
    beat: Callable[[Mapping[str, str]], None], look: Callable[[], None]
) -> Iterator[None]:
    """Record a heartbeat every HEARTBEAT_SECONDS while the block runs.

    Args:
        beat: Called with the tag to record.
        look: Called after each heartbeat.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            beat({ALIVE_TAG: str(int(time.time()))})
            look()

    threading.Thread(target=run, daemon=True, name="heartbeat").start()
    try:
        yield
    finally:
        over.set()


def _machine() -> str:
    """Return this machine's identity, hashed because it is confidential (machine-id(5))."""
    try:
        identity = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return hashlib.sha256(f"pixelis {identity}".encode()).hexdigest()[:16] if identity else ""


def _mounts() -> str:
    """Return the id of this process's view of the file system; containers have their own."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""
