"""Delivery of journals that ended runs left, and the end of runs that were killed."""

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pixelis.tracking.delivery import Delivery
from pixelis.tracking.heartbeat import DIED_TAG, is_dead, journal_of, running_runs, writers
from pixelis.tracking.journal import PREFIX, SUFFIX, Journal
from pixelis.tracking.messages import WarnOnce, first_line
from pixelis.tracking.privacy import public, without_secrets
from pixelis.tracking.record import Record, now
from pixelis.tracking.send import Sender
from pixelis.tracking.store import connect, limit_waiting
from pixelis.tracking.visits import VISIT_TAG


def find_journals(trees: Sequence[Path], folders: Sequence[Path] = ()) -> list[Path]:
    """Return the journals with undelivered records, or without a record of the run's end.

    Args:
        trees: Folders to search recursively.
        folders: Folders to search without their subfolders.
    """
    name = f"{PREFIX}*{SUFFIX}"
    paths = {path for tree in trees for path in tree.rglob(name)}
    paths |= {path for folder in folders for path in folder.glob(name)}
    return sorted(path for path in paths if path.is_file() and _is_left(Journal(path)))


def _is_left(journal: Journal) -> bool:
    return not journal.is_delivered or not journal.is_ended


def deliver_journals(paths: Sequence[Path]) -> tuple[bool, list[str]]:
    """Send the remaining records of journals and end their runs.

    A run that was killed ends KILLED; a resume sets it to RUNNING again.

    Args:
        paths: The journals, as from `find_journals`.

    Returns:
        Whether everything for this store was delivered, and one line per run.
    """
    limit_waiting()
    client = MlflowClient()
    results = [_deliver_path(client, path) for path in paths]
    return all(is_delivered for is_delivered, _ in results), [
        line for _, line in results if line is not None
    ]


def end_killed_runs() -> list[str]:
    """End the runs of killed processes of this machine; return one line per run."""
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    try:
        return end_dead_runs(connect())
    except Exception as error:
        why = public(first_line(error))
        return [f"killed runs stay as they are: MLflow cannot be reached ({why})"]


def end_dead_runs(client: MlflowClient, *, but: str = "") -> list[str]:
    """End the runs that are RUNNING in MLflow although their processes on this machine have ended.

    The remaining records of their journals are sent first. The runs become KILLED, or FINISHED if
    the training was finished; a resume sets them to RUNNING again.

    Args:
        client: Client of the store.
        but: The id of this process's own run, which is left alone.

    Returns:
        One line per run.
    """
    lines = []
    for run in running_runs(client):
        if run.info.run_id != but and _has_died(run):
            # Read it again: it may have been resumed, or have ended, after it was listed.
            run = client.get_run(run.info.run_id)
            if run.info.status == "RUNNING" and _has_died(run):
                lines.append(end_run(client, run))
    return lines


def _has_died(run: Run) -> bool:
    processes = writers(run)
    return bool(processes) and all(is_dead(process) for process in processes)


def end_run(client: MlflowClient, run: Run) -> str:
    """End a run whose processes have died, and return a line about it."""
    run_id, last = run.info.run_id, writers(run)[-1]
    for writer in writers(run):
        journal = journal_of(writer)
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
    return f"{run.info.run_name} ({run_id}) was killed: it is {status} in MLflow now"


def _deliver_path(client: MlflowClient, path: Path) -> tuple[bool, str | None]:
    journal = Journal(path)
    try:
        is_ours = journal.acquire()
    except OSError as error:  # a folder that may not be written to
        return False, f"{path}: {first_line(error)}"
    if not is_ours:
        if journal.is_delivered:  # the run is alive
            return True, None
        why = "in use by the training that writes it, or by another sync; left alone"
        return True, f"{path}: {why}"
    try:
        return _deliver(client, journal)
    finally:
        journal.release()


def _deliver(client: MlflowClient, journal: Journal) -> tuple[bool, str | None]:
    run_id, uri = journal.run_id, without_secrets(str(client.tracking_uri))
    try:
        run = client.get_run(run_id)
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        if journal.is_delivered and _is_unknown(error):  # it was delivered to another store
            return True, None
        return False, f"{journal.path}: {_why_not(error, run_id, uri)}; the file stays as it is"
    if run.info.lifecycle_stage != "active":
        if journal.is_delivered:
            return True, None
        undo = f"mlflow runs restore --run-id {run_id}"
        return False, f"{journal.path}: its run was deleted; {undo} undoes that"
    is_open = run.info.status == "RUNNING" or journal.is_finished
    if is_open and not journal.is_ended and not _others_live(run, journal):
        times = [record.timestamp for record, _ in journal.read() if record]
        journal.append(
            Record("end", "status", {"status": "KILLED"}, timestamp=max(times, default=0) or now())
        )
    waiting = sum(record is not None for record, _ in journal.read(journal.sent))
    if not waiting and not journal.refused():
        return True, None
    delivery = Delivery(journal, Sender(client, journal, has_past=True), WarnOnce("unreachable"))
    is_sent = delivery.send_rest()
    if is_sent and delivery.failure is None:
        refused = f", {len(delivery.refused)} refused" if delivery.refused else ""
        status = client.get_run(run_id).info.status
        line = f"{run.info.run_name} ({run_id}): {delivery.num_sent} records delivered"
        return True, f"{line}{refused}, {status}"
    assert delivery.failure is not None
    left = sum(record is not None for record, _ in journal.read(journal.sent))
    left += len(delivery.refused)
    return False, (
        f"{journal.path}: MLflow at {uri} takes no records "
        f"({public(first_line(delivery.failure))}); {left} of {waiting} wait"
    )


def _others_live(run: Run, journal: Journal) -> bool:
    """Return whether other living processes write to the run, at once or after a resume."""
    path = journal.path.resolve()
    others = [each for each in writers(run) if journal_of(each).path != path]
    return any(not is_dead(each) for each in others)


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def _why_not(error: Exception, run_id: str, uri: str) -> str:
    if _is_unknown(error):
        return f"run {run_id} is not in {uri}; name its store with MLFLOW_TRACKING_URI"
    return f"MLflow at {uri} cannot be reached ({public(first_line(error))})"
