"""Opening and closing of runs: a new run, a run that `mlflow run` opened, or a resumed one."""

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pixelis.errors import UserError
from pixelis.tracking.experiments import describe_experiment
from pixelis.tracking.journal import Past
from pixelis.tracking.lookup import open_experiment
from pixelis.tracking.privacy import first_line, logger, public
from pixelis.tracking.recorder import MlflowRecorder, Scalar
from pixelis.tracking.send import DIED_TAG, ERROR_TAG
from pixelis.tracking.store import ATTEMPT_SECONDS, call_within, connect, retry_locked
from pixelis.tracking.sync import ALIVE_TAG, claim, end_dead_runs

HEARTBEAT_SECONDS = 60.0
GRACE_SECONDS = 600.0  # after which a heartbeat has stopped
FIRST_KEY = "system/cpu_utilization_percentage"  # of the system metrics
# Endings of the system metrics that are recorded, of processor, memory and each GPU.
SYSTEM_ENDINGS = ("utilization_percentage", "memory_usage_percentage")
OPEN_SECONDS = 5.0  # how long to wait for the delivery of a run's first records
_ENVIRONMENT = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
# The run that is open here. We do not use MLflow's stack of runs, because at Python's exit MLflow
# ends the runs on it with calls to the server.
_open_run_id: ContextVar[str | None] = ContextVar("open_run_id", default=None)


@contextmanager
def without_environment() -> Iterator[None]:
    """Hide the environment's run and experiment from runs that are opened in the block."""
    kept = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def nested_environment(recorder: MlflowRecorder) -> dict[str, str]:
    """Return environment variables that make another process nest its run under this one."""
    return {
        "MLFLOW_EXPERIMENT_ID": recorder.experiment_id,
        # MLflow puts these tags on every run that the process opens.
        "MLFLOW_RUN_CONTEXT": json.dumps({MLFLOW_PARENT_RUN_ID: recorder.run_id}),
    }


def name_opened_run(name: str) -> None:
    """Name the run that `mlflow run` opened for this process, if any, until `open_run` does."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        with suppress(MlflowException):  # `open_run` will say what is wrong
            connect().update_run(run_id, name=public(name))


@contextmanager
def open_run(
    *,
    entry_point: str,
    experiment: str,
    run_name: str,
    params: Mapping[str, Scalar],
    tags: Mapping[str, str],
    resume_run_id: str | None = None,
    output_dir: Path | None = None,
    past: Past | None = None,
    system_metrics: bool = True,
    shared: bool = False,
) -> Iterator[MlflowRecorder]:
    """Open a run, and close it with a status that depends on how the block ended.

    Under `mlflow run`, which sets MLFLOW_RUN_ID, this is the run that MLflow opened; otherwise a
    new one in the experiment of MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, else in
    `experiment`. It ends FINISHED; KILLED after Ctrl-C or a signal; after an error FAILED, with the
    error's first line in the tag `pixelis.error`. Other runs whose processes were killed on this
    machine are set to KILLED.

    Args:
        entry_point: The MLproject entry point, for the tag `pixelis.entry_point`.
        experiment: The experiment if the environment names none; created if it does not exist.
        run_name: The run's name; a resumed run keeps its own.
        params: Parameters; those that are on the run already stay unchanged.
        tags: Tags of the run.
        resume_run_id: A run to resume. A run that `mlflow run` opened then only links to it.
        output_dir: Folder of the run's journal; by default the working folder, where the journal is
            removed once it is delivered.
        past: Point in the journal where a resumed training continues.
        system_metrics: Whether to record processor, memory and GPU use (`system/*`).
        shared: Whether processes of several machines write to this run at once.

    Yields:
        The recorder of the run.

    Raises:
        UserError: MLflow cannot be reached, or refuses to open the run; or another process is
            delivering what it recorded earlier.
    """
    shell_id = os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        client = connect()
        resumed = _find(client, resume_run_id) if resume_run_id else None
        shell_id = None if resumed and shell_id == resume_run_id else shell_id
        run = resumed or retry_locked(
            client, lambda: _start(client, shell_id, experiment, public(run_name))
        )
        # Takes the journal's lock, which keeps `sync` away, and sends what an earlier process left.
        recorder = MlflowRecorder(
            client,
            run,
            resumed=resumed is not None,
            output_dir=output_dir,
            past=past,
            shared=shared,
        )
        # Before the run is RUNNING: otherwise others would take it for dead.
        claim(client, run, recorder.journal.path, shared=shared)
        client.update_run(run.info.run_id, status="RUNNING")
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(public(f"MLflow cannot open a run ({first_line(error)})")) from error
    recorder.tags({"pixelis.entry_point": entry_point, **git_tags(), **_cleaned(run), **tags})
    recorder.params(params)
    # A resumed run must not keep the tags of its earlier end.
    for tag in {ERROR_TAG, "pixelis.stopped", DIED_TAG} & set(run.data.tags):
        recorder.attempt("clearing", partial(client.delete_tag, run.info.run_id, tag))
    if recorder.flush(OPEN_SECONDS):
        # Without a warning: of several processes that set the same tags at once, some may fail.
        with suppress(MlflowException, TimeoutError):
            describe = partial(describe_experiment, client, recorder.experiment_id)
            call_within(ATTEMPT_SECONDS, describe)
        _end_others(recorder)
    shell = None
    if resumed and shell_id:
        shell = recorder.attempt(
            "linking the two runs", lambda: _link(client, shell_id, run, output_dir)
        )
    with _interruptible():
        outer = _open_run_id.set(run.info.run_id)
        try:
            with _in_thread(partial(_beat, recorder)), _system_metrics(recorder, system_metrics):
                yield recorder
        except BaseException as error:
            _close(recorder, shell, error)
            raise
        else:
            _close(recorder, shell, None)
        finally:
            _open_run_id.reset(outer)


@contextmanager
def _in_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a function in a thread during the block, at the end of which its event is set."""
    over = threading.Event()
    threading.Thread(target=work, args=(over,), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _beat(recorder: MlflowRecorder, over: threading.Event) -> None:
    """Record heartbeats, and end the runs of other machines whose heartbeat has stopped."""
    since = time.monotonic()  # when the store began to answer
    suspects: set[str] = set()
    while not over.wait(HEARTBEAT_SECONDS):
        recorder.tags({ALIVE_TAG: str(int(time.time()))})
        if not recorder.answers():
            since = time.monotonic()
        elif time.monotonic() - since >= GRACE_SECONDS:
            _end_others(recorder, GRACE_SECONDS, suspects)


def _end_others(
    recorder: MlflowRecorder, grace: float | None = None, suspects: set[str] | None = None
) -> None:
    """End other runs whose processes have died; see `sync.end_dead_runs`."""
    lines = recorder.attempt(
        "ending killed runs",
        lambda: end_dead_runs(recorder.client, but=recorder.run_id, grace=grace, suspects=suspects),
    )
    for line in lines or ():
        logger.warning("%s", line)


def _system_metrics(recorder: MlflowRecorder, wanted: bool) -> AbstractContextManager[None]:
    """Record system metrics during a block; MLflow's environment variable overrides `wanted`."""
    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set():
        wanted = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get()
    return _in_thread(partial(measure_system, recorder)) if wanted else nullcontext()


def measure_system(recorder: MlflowRecorder, over: threading.Event) -> None:
    """Record processor, memory and GPU use until an event is set.

    MLflow's own loop asks the server before each measurement and stops for good when the server
    does not answer.
    """
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    monitor: Any = SystemMetricsMonitor(recorder.run_id)
    step = recorder.next_step(FIRST_KEY)
    while True:
        for _ in range(monitor.samples_before_logging):
            monitor.collect_metrics()
            if over.wait(monitor.sampling_interval):
                return
        values = monitor.aggregate_metrics().items()
        kept = {f"system/{key}": value for key, value in values if key.endswith(SYSTEM_ENDINGS)}
        recorder.metrics(kept, step)
        step += 1
        for each in monitor.monitors:
            each.clear_metrics()


def _cleaned(run: Run) -> dict[str, str]:
    """Return the tags that MLflow set with private parts, without these parts."""
    return {key: public(value) for key, value in run.data.tags.items() if public(value) != value}


def _find(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run to resume; if it is not there any more, log a warning and return None."""
    why = "is not in this MLflow store"
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    else:
        if run.info.lifecycle_stage == "active":
            return run
        why = f"was deleted (mlflow runs restore --run-id {run_id} undoes that)"
    logger.warning("the checkpoint's run %s %s; the training goes on in a new run", run_id, why)
    return None


def _start(client: MlflowClient, run_id: str | None, experiment: str, run_name: str) -> Run:
    """Create a run, or start the one that `mlflow run` opened."""
    if run_id:
        client.update_run(run_id, status="RUNNING", name=run_name)
        return client.get_run(run_id)
    # By default MLflow records the path of the script, which contains the user's home folder.
    tags = {"mlflow.source.name": "pixelis"}
    if parent := _open_run_id.get():
        tags[MLFLOW_PARENT_RUN_ID] = parent
    experiment_id = open_experiment(client, experiment)
    return client.create_run(experiment_id, run_name=run_name, tags=resolve_tags(tags))


def _link(
    client: MlflowClient, shell_id: str, first: Run, output_dir: Path | None
) -> MlflowRecorder:
    """Link the run that `mlflow run` opened to the run that is resumed."""
    name, run_id = first.info.run_name, first.info.run_id
    client.update_run(shell_id, name=f"resume of {name}")
    run = client.get_run(shell_id)
    shell = MlflowRecorder(client, run, output_dir=output_dir)
    claim(client, run, shell.journal.path)
    shell.tags({"pixelis.resumes": run_id, **_cleaned(run)})
    link = f"#/experiments/{first.info.experiment_id}/runs/{run_id}"
    shell.note(f"This command resumed the training of [{name}]({link}) (`{run_id}`): look there.")
    shell.flush()
    return shell


def _close(
    recorder: MlflowRecorder, shell: MlflowRecorder | None, error: BaseException | None
) -> None:
    status = _status(error)
    message = first_line(error) if error is not None and status == "FAILED" else None
    for each in (recorder, shell) if shell else (recorder,):
        each.close(status, message)


def _status(error: BaseException | None) -> str:
    """Return the status of a run that ended with this error; exit code 128 + n means signal n."""
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or code == 0:
            return "FINISHED"
        return "KILLED" if isinstance(code, int) and code > 128 else "FAILED"
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    return "FINISHED" if error is None else "FAILED"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Convert SIGTERM to SystemExit while the run is open, so that it is closed."""
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if mine:
        signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        if mine and signal.getsignal(signal.SIGTERM) is _leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def git_tags(file: Path = Path(__file__)) -> dict[str, str]:
    """Return the tags `git.commit` and `git.dirty` of the repository that tracks `file`."""
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        commit = _git(file.parent, "rev-parse", "HEAD")
        dirty = _git(file.parent, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": commit, "git.dirty": "true" if dirty else "false"}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
