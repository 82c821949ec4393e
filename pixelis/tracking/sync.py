"""Delivering later what runs could not deliver while they lived."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pixelis.tracking.console import first_line
from pixelis.tracking.delivery import Record
from pixelis.tracking.outbox import Outbox
from pixelis.tracking.process import end_dead_runs
from pixelis.tracking.source import public, without_secrets
from pixelis.tracking.spool import PREFIX, SUFFIX, Spool
from pixelis.tracking.store import be_impatient, connect


def find_spools(trees: Sequence[Path], folders: Sequence[Path] = ()) -> list[Path]:
    """The files of undelivered records: in trees and everything below, and in single folders."""
    name = f"{PREFIX}*{SUFFIX}"
    found = {path for tree in trees for path in tree.rglob(name)}
    found |= {path for folder in folders for path in folder.glob(name)}
    return sorted(path for path in found if path.is_file())


def deliver_spools(paths: Sequence[Path], say: Callable[[str], None]) -> bool:
    """Deliver spools, end their runs, remove the files; a line a run.

    A run that was killed while MLflow was away ends KILLED: a resume sets it RUNNING again.

    Args:
        paths: Of `find_spools`.
        say: Takes the lines.

    Returns:
        Whether nothing is left that this store could have taken.
    """
    be_impatient()
    client = MlflowClient()
    return all([_sync_one(client, path, say) for path in paths])


def end_killed_runs(say: Callable[[str], None]) -> None:
    """End the runs of killed processes of this machine, where MLflow can be reached.

    Args:
        say: Takes a line a run.
    """
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    try:
        end_dead_runs(connect(), say)
    except Exception as error:
        say(f"killed runs stay as they are: MLflow cannot be reached ({public(first_line(error))})")


def _sync_one(client: MlflowClient, path: Path, say: Callable[[str], None]) -> bool:
    run_id = path.name.removeprefix(PREFIX).removesuffix(SUFFIX)
    spool = Spool(path.parent, run_id)
    if not spool.acquire():
        say(f"{path}: in use by the training that writes it, or by another sync; left alone")
        return True
    try:
        if not path.is_file():  # another sync was faster
            spool.remove()
            return True
        return _deliver(client, spool, run_id, say)
    finally:
        spool.release()


def _deliver(client: MlflowClient, spool: Spool, run_id: str, say: Callable[[str], None]) -> bool:
    uri = without_secrets(str(client.tracking_uri))
    try:
        run = client.get_run(run_id)
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        say(f"{spool.path}: {_why_not(error, run_id, uri)}; the file stays as it is")
        return False
    if run.info.lifecycle_stage != "active":
        say(f"{spool.path}: its run was deleted; mlflow runs restore --run-id {run_id} undoes that")
        return False
    records = list(_ended(spool.load(), run))
    outbox = Outbox(client, run_id, spool, resumed=True)
    outbox.console.mute("unreachable")
    outbox.take_up(records)
    if outbox.deliver():
        refused = f", {outbox.courier.num_refused} refused" if outbox.courier.num_refused else ""
        status = client.get_run(run_id).info.status
        say(f"{run.info.run_name} ({run_id}): {len(records)} records delivered{refused}, {status}")
        return True
    assert outbox.failure is not None
    say(
        f"{spool.path}: MLflow at {uri} takes no records ({public(first_line(outbox.failure))}); "
        f"{len(outbox)} of {len(records)} wait"
    )
    return False


def _ended(records: Sequence[Record], run: Run) -> Iterator[Record]:
    """The records, with the run's end last."""
    ends = [record for record in records if record.kind == "status"]
    yield from (record for record in records if record.kind != "status")
    if ends:
        yield ends[-1]
    elif run.info.status == "RUNNING":
        newest = max((record.timestamp for record in records), default=0)
        yield Record("status", "status", "KILLED", timestamp=newest)


def _why_not(error: Exception, run_id: str, uri: str) -> str:
    if isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
        return f"run {run_id} is not in {uri}; name its store with MLFLOW_TRACKING_URI"
    return f"MLflow at {uri} cannot be reached ({public(first_line(error))})"
