"""Processes that have died: delivery of the journals that they left, and the end of their runs.

On one machine the lock of a process's journal decides: the kernel frees it when the process ends.
Across machines the age of a heartbeat decides, a tag that a writing process renews, and only if the
store has answered the observer for so long: otherwise the heartbeats could not arrive either.
"""

import glob
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pixelis.tracking.delivery import Delivery
from pixelis.tracking.journal import PREFIX, SUFFIX, Journal, Record, now
from pixelis.tracking.lookup import search_everywhere
from pixelis.tracking.privacy import WarnOnce, first_line, public, without_secrets
from pixelis.tracking.send import DIED_TAG, Sender
from pixelis.tracking.store import connect
from pixelis.tracking.visits import VISIT_TAG

PROCESS_TAG = "pixelis.process"  # JSON: a list of the processes that write to the run
ALIVE_TAG = "pixelis.alive"  # seconds since 1970 of the last heartbeat


def find_journals(trees: Sequence[Path], folders: Sequence[Path] = ()) -> list[Path]:
    """Return the journals with undelivered records, or without a record of the run's end.

    They are looked for in the trees with all subfolders, and in the folders without them.
    """
    name = f"{PREFIX}*{SUFFIX}"
    paths = {path for tree in trees for path in tree.rglob(name)}
    paths |= {path for folder in folders for path in folder.glob(name)}
    journals = [Journal(path) for path in sorted(paths) if path.is_file()]
    return [each.path for each in journals if not (each.is_delivered and each.end)]


def deliver_journals(paths: Sequence[Path]) -> tuple[bool, list[str]]:
    """Send the remaining records of journals and end their runs.

    A run that was killed ends KILLED; a resume sets it to RUNNING again.

    Returns:
        Whether everything for this store was delivered, and one line per run.
    """
    try:
        client = connect() if paths else None
    except MlflowException as error:
        return False, [f"MLflow cannot be reached ({public(first_line(error))}); all files stay"]
    results = [_deliver_path(client, path) for path in paths if client]
    lines = [line for _, line in results if line is not None]
    return all(is_delivered for is_delivered, _ in results), lines


def _deliver_path(client: MlflowClient, path: Path) -> tuple[bool, str | None]:
    journal = Journal(path)
    try:
        is_ours = journal.acquire()
    except OSError as error:  # a folder that may not be written to
        return False, f"{path}: {first_line(error)}"
    if not is_ours:
        why = "in use by the training that writes it, or by another sync; left alone"
        return True, None if journal.is_delivered else f"{path}: {why}"
    try:
        return _deliver(client, journal)
    finally:
        journal.close(is_delivered=journal.is_delivered)


def _deliver(client: MlflowClient, journal: Journal) -> tuple[bool, str | None]:
    run_id, uri = journal.run_id, without_secrets(str(client.tracking_uri))
    why, is_away = None, False
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            why = f"its run was deleted; mlflow runs restore --run-id {run_id} undoes that"
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        code = error.error_code if isinstance(error, MlflowException) else None
        is_away = code != "RESOURCE_DOES_NOT_EXIST"
        why = f"run {run_id} is not in {uri}; name its store with MLFLOW_TRACKING_URI"
        if is_away:
            why = f"MLflow at {uri} cannot be reached ({public(first_line(error))})"
    if why is not None:
        is_done = journal.is_delivered and not is_away
        return is_done, None if is_done else f"{journal.path}: {why}; the file stays as it is"
    is_open = run.info.status == "RUNNING" or journal.is_finished
    if is_open and journal.end is None and not _others_live(run, journal):
        times = [record.timestamp for record, _ in journal.read() if record]
        killed = {"status": "KILLED"}
        journal.append(Record("end", "status", killed, timestamp=max(times, default=0) or now()))
    waiting = len(journal.unsent())
    if not waiting and not journal.refused():
        return True, None
    delivery = Delivery(journal, Sender(client, journal, has_past=True), WarnOnce("unreachable"))
    if delivery.send_rest():
        refused = f", {len(delivery.refused)} refused" if delivery.refused else ""
        status = client.get_run(run_id).info.status
        delivered = f"{delivery.num_sent} records delivered{refused}, {status}"
        return True, f"{run.info.run_name} ({run_id}): {delivered}"
    left, why = len(journal.unsent()), first_line(delivery.failure or OSError("disk full"))
    return False, (
        f"{journal.path}: MLflow at {uri} takes no records ({public(why)}); {left} of {waiting} "
        "wait"
    )


def _others_live(run: Run, journal: Journal) -> bool:
    """Return whether other living processes write to the run, at once or after a resume."""
    path = journal.path.resolve()
    others = [each for each in _writers(run) if _journal_of(each).path != path]
    return any(not is_dead(each) for each in others)


def claim(client: MlflowClient, run: Run, journal: Path, *, shared: bool = False) -> None:
    """Name this process in the tag of the processes that write to a run."""
    others = [each for each in _writers(run) if not is_dead(each)] if shared else []
    path = public(str(journal.resolve()))
    host = socket.gethostname()
    mine = {"host": host, "machine": _machine(), "pid": os.getpid(), "journal": path}
    client.set_tag(run.info.run_id, PROCESS_TAG, json.dumps([*others, mine]))


def _machine() -> str:
    """Return a digest that is equal for all processes that see the same files and locks."""
    parts = [socket.gethostname(), str(os.getuid())]
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="utf-8"))
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/mnt"))  # containers have their own
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _writers(run: Run) -> list[dict[str, Any]]:
    """Return the processes that a run's tag names; none if another program wrote the tag."""
    try:
        value = json.loads(run.data.tags.get(PROCESS_TAG, "[]"))
        return [{**each, "journal": str(each["journal"])} for each in value]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def is_dead(writer: Mapping[str, Any]) -> bool | None:
    """Return whether a process has ended, or None if that cannot be seen from here."""
    journal = _journal_of(writer)
    if writer.get("machine") != _machine():
        return None
    if not journal.path.is_file():
        return True  # a live process keeps its journal at the path in the tag
    try:
        is_free = journal.acquire()
    except OSError:  # a folder that may not be written to
        return None
    if is_free:
        journal.release()
    return is_free


def _journal_of(writer: Mapping[str, Any]) -> Journal:
    """Return a process's journal, also where a later start has moved its folder aside."""
    path = Path(writer["journal"]).expanduser()
    if not path.is_file():
        folder, name = glob.escape(path.parent.name), glob.escape(path.name)
        path = next(path.parent.parent.glob(f"{folder}.*/{name}"), path)
    return Journal(path)


def end_killed_runs() -> list[str]:
    """End the runs of killed processes of this machine; return one line per run."""
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    try:
        return end_dead_runs(connect())
    except Exception as error:
        why = public(first_line(error))
        return [f"killed runs stay as they are: MLflow cannot be reached ({why})"]


def end_dead_runs(
    client: MlflowClient,
    *,
    but: str = "",
    grace: float | None = None,
    suspects: set[str] | None = None,
) -> list[str]:
    """End the runs that are RUNNING in MLflow although their processes have ended.

    The remaining records of their journals are sent first. The runs become KILLED, or FINISHED if
    the training was finished; a resume sets them to RUNNING again. The run `but` is left alone.
    `grace` is the age in seconds at which a heartbeat from another machine means that its process
    has ended; None leaves other machines' runs alone.
    `suspects`, if given, are the runs that seemed dead at the last call, and become those that seem
    dead now; only a run that is among both is ended: one that was deleted for a time and has just
    been restored needs some seconds for its next heartbeat.

    Returns:
        One line per run.
    """
    query = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '[%'"
    runs = [
        run for run in search_everywhere(query) if run.info.run_id != but and _has_died(run, grace)
    ]
    if suspects is not None:
        before = set(suspects)
        suspects.clear()
        suspects.update(run.info.run_id for run in runs)
        runs = [run for run in runs if run.info.run_id in before]
    # Read them again: one may have been resumed, or have ended, after it was listed.
    again = [client.get_run(run.info.run_id) for run in runs]
    return [
        _end_run(client, run)
        for run in again
        if run.info.status == "RUNNING" and _has_died(run, grace)
    ]


def _has_died(run: Run, grace: float | None) -> bool:
    verdicts = [is_dead(writer) for writer in _writers(run)]
    beat = run.data.tags.get(ALIVE_TAG, run.info.start_time // 1000)
    is_silent = grace is not None and time.time() - float(beat) >= grace
    return bool(verdicts) and all(is_silent if each is None else each for each in verdicts)


def _end_run(client: MlflowClient, run: Run) -> str:
    """Send what a run's dead processes left, end the run, and return a line about it."""
    run_id, last = run.info.run_id, _writers(run)[-1]
    for writer in _writers(run):
        journal = _journal_of(writer)
        if is_dead(writer) and journal.path.is_file() and journal.run_id == run_id:
            _deliver_path(client, journal.path)
    status = client.get_run(run_id).info.status
    if status == "RUNNING":  # the journal is on another machine, or was deleted
        status = "KILLED"
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and attributes.status = 'RUNNING'"
        for child in client.search_runs([run.info.experiment_id], query):
            if VISIT_TAG in child.data.tags:  # other nested runs have processes of their own
                client.set_terminated(child.info.run_id, "KILLED")
        client.set_terminated(run_id, "KILLED")
    if status == "KILLED":
        why = f"its process {last.get('pid')} on {last.get('host')} ended without a word"
        client.set_tag(run_id, DIED_TAG, why)
    how = "was killed" if status == "KILLED" else "had ended"
    return f"{run.info.run_name} ({run_id}) {how}: it is {status} in MLflow now"
