"""Lookup of earlier results: an experiment, finished runs, trainings by name, an adapter."""

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from pixelis.errors import CheckpointError, UserError
from pixelis.tracking.privacy import first_line
from pixelis.tracking.store import connect

logger = logging.getLogger(__name__)

FINAL_ADAPTER = "adapters/final"
EVENTS_FILE = "curriculum/events.json"
TEST_FILE = "evaluation/table.json"  # MLflow table of a training's results on the test split
# Tag of a data-prep run: digest of its files, by which runs that read the files find it.
DATA_TAG = "pixelis.data_digest"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
SHORT = 8  # characters of an id that are shown, and that a shortened id must have at least
MOST_LISTED = 10


@dataclass(frozen=True)
class RunInfo:
    """The fields of a run that the entry points use."""

    run_id: str
    name: str
    experiment_id: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


def open_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment in the environment, else of `name`; create it if missing."""
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return chosen
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was faster
    assert experiment is not None
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name!r} was deleted: take another name, or bring it back with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    return str(experiment.experiment_id)


def find_run(experiment: str) -> RunInfo:
    """Return the newest finished sft run.

    The search begins in the experiment that the environment names (`mlflow run` sets it) and
    continues in `experiment`.

    Raises:
        UserError: There is no such run (the text lists experiments that have one), or MLflow cannot
            be read.
    """
    with _reading_mlflow():
        client = connect()
        for candidate in _candidates(client, experiment):
            if runs := _finished_runs(client, candidate, 1):
                return _run_info(runs[0])
        everything = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
        having = [each.name for each in everything if _finished_runs(client, each, 1)]
    others = f"experiments that have one: {', '.join(having)}"
    if not having:
        others = f"experiments there are: {', '.join(e.name for e in everything)}; none has one"
    raise UserError(f"no finished sft run in the experiment {experiment!r}; {others}")


@contextmanager
def _reading_mlflow() -> Iterator[None]:
    """Convert MLflow's errors to a UserError."""
    try:
        yield
    except MlflowException as error:
        raise UserError(f"MLflow cannot be read ({first_line(error)})") from error


def data_tag(digests: Mapping[str, str]) -> str:
    """Return one digest of several files: file name -> SHA-256."""
    listed = "\n".join(f"{name} {digest}" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def find_data_run(digests: Mapping[str, str]) -> RunInfo | None:
    """Return the newest finished data-prep run that made exactly these files, or None."""
    query = f"attributes.status = 'FINISHED' and tags.`{DATA_TAG}` = '{data_tag(digests)}'"
    connect()
    return next(map(_run_info, search_everywhere(query, most=1)), None)


def find_adapter(adapter: str | None, experiment: str) -> str:
    """Return the address of an adapter: the given one, or that of the newest finished training.

    Raises:
        UserError: when the experiment has no finished training.
    """
    if adapter is not None:
        return adapter
    newest = find_run(experiment)
    address = f"runs:/{newest.run_id}"
    logger.info("adapter: %s, of the newest finished sft run (%s)", address, newest.name)
    return address


def resolve_adapter(uri: str) -> Path:
    """Return a local folder with an adapter in PEFT's layout.

    Args:
        uri: `runs:/<id>[/path]`, `models:/...`, another artifact URI, or a local folder.

    Returns:
        The folder; a download is deleted when the process ends.

    Raises:
        CheckpointError: The folder cannot be fetched, or holds no adapter.
    """
    if not uri.startswith(("runs:/", "models:/")) and "://" not in uri:
        return _checked(Path(uri), uri)
    is_bare_run = uri.startswith("runs:/") and "/" not in uri.removeprefix("runs:/").strip("/")
    source = f"{uri.rstrip('/')}/{FINAL_ADAPTER}" if is_bare_run else uri
    target = tempfile.mkdtemp(prefix="pixelis-adapter-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        folder = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=target)
    except (MlflowException, OSError) as error:
        why = first_line(error)
        raise CheckpointError(f"the adapter {source} cannot be fetched: {why}") from error
    return _checked(Path(folder), source)


def _checked(folder: Path, uri: str) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"the adapter {uri} is not a folder")
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"the adapter {uri} is incomplete: {' and '.join(missing)} missing")
    return folder


@dataclass(frozen=True)
class TrainingRun:
    """The data of a training in MLflow."""

    info: RunInfo  # the run
    events: Sequence[Mapping[str, Any]]  # events of the training's curriculum
    # The rows of the table of results on the test split; none if they were not measured.
    tests: Sequence[Mapping[str, Any]]
    # The values by step of the requested metrics.
    history: Mapping[str, Sequence[tuple[int, float]]]


def find_trainings(
    names: Sequence[str] | None, *, experiment: str, last: int, kept: tuple[str, ...]
) -> list[TrainingRun]:
    """Return the named trainings, or the newest finished ones of an experiment, oldest first.

    Args:
        names: Ids, beginnings of ids (8 letters or more) or names; None takes the newest.
        experiment: Experiment with the newest trainings; the environment's ones are searched first.
        last: How many of the newest.
        kept: Beginnings of the names of metrics whose history is read.

    Raises:
        UserError: No run or several runs have a name; a run has no curriculum; there are fewer than
            two runs; or MLflow cannot be read.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for a file of 2 kB
    with _reading_mlflow():
        client = connect()
        if names is None:
            found = [
                _finished_runs(client, each, last)[::-1] for each in _candidates(client, experiment)
            ]
            # The newest of the first experiment that has two; else of the first that has one.
            runs = next(iter(sorted(filter(None, found), key=lambda each: len(each) < 2)), [])
        else:
            runs = [_named(name) for name in names]
        distinct = {run.info.run_id: run for run in runs}
        if len(distinct) < 2:
            given = ", ".join(map(_label, distinct.values())) or "none"
            raise UserError(f"two runs or more are compared, got {given}; {_listing()}")
        return [_read(client, run, kept) for run in distinct.values()]


def _named(name: str) -> Run:
    """Return the run with an id, a beginning of an id or a name."""
    meant = [
        run
        for run in search_everywhere()
        if name in (run.info.run_id, run.info.run_name)
        or (len(name) >= SHORT and run.info.run_id.startswith(name))
    ]
    exact = [run for run in meant if run.info.run_id == name] or meant
    if not exact:
        raise UserError(f"no run has the id or the name {name!r}; {_listing()}")
    if len(exact) > 1:
        several = ", ".join(map(_label, exact[:MOST_LISTED]))
        raise UserError(f"{name!r} could be {len(exact)} runs: {several}; name one by its id")
    return exact[0]


def search_everywhere(query: str = "", most: int = 100_000) -> list[Run]:
    """Return runs of all experiments, newest first."""
    found: list[Run] = mlflow.search_runs(
        filter_string=query, search_all_experiments=True, max_results=most, output_format="list"
    )
    return found


def _listing() -> str:
    """List the trainings that there are."""
    runs = search_everywhere("tags.`pixelis.entry_point` = 'sft'")
    if not runs:
        return "there is no sft run in this store"
    more = f" and {len(runs) - MOST_LISTED} older ones" if len(runs) > MOST_LISTED else ""
    return f"sft runs there are: {', '.join(map(_label, runs[:MOST_LISTED]))}{more}"


def _label(run: Run) -> str:
    return f"{run.info.run_name} ({run.info.run_id[:SHORT]})"


def _read(client: MlflowClient, run: Run, kept: tuple[str, ...]) -> TrainingRun:
    run_id = run.info.run_id
    events = _load(client, run_id, EVENTS_FILE)
    if events is None:
        made_by = run.data.tags.get("pixelis.entry_point", "another program")
        raise UserError(
            f"the run {_label(run)}, of {made_by}, has no curriculum to compare (no "
            f"{EVENTS_FILE}); {_listing()}"
        )
    history = {
        key: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]
        for key in run.data.metrics
        if key.startswith(kept)
    }
    table = _load(client, run_id, TEST_FILE) or {"columns": [], "data": []}
    tests = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    return TrainingRun(_run_info(run), events, tests, history)


def _load(client: MlflowClient, run_id: str, path: str) -> Any:
    """Return the JSON of a run's artifact, or None if the run does not have it."""
    folder = path.rpartition("/")[0]
    if all(each.path != path for each in client.list_artifacts(run_id, folder)):
        return None
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/{path}")


def _candidates(client: MlflowClient, experiment: str) -> list[Experiment]:
    """Return the experiments to search: those of the environment, then the named one."""
    experiments: list[Experiment | None] = []
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        experiments.append(client.get_experiment(chosen))
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        experiments.append(client.get_experiment_by_name(name))
    experiments.append(client.get_experiment_by_name(experiment))
    return [each for each in experiments if each is not None]


def _finished_runs(client: MlflowClient, experiment: Experiment, most: int) -> list[Run]:
    """Return the newest finished sft runs."""
    query = "attributes.status = 'FINISHED' and tags.`pixelis.entry_point` = 'sft'"
    order = ["attributes.end_time DESC"]
    ids = [experiment.experiment_id]
    return list(client.search_runs(ids, query, order_by=order, max_results=most))


def _run_info(run: Run) -> RunInfo:
    info = run.info
    return RunInfo(info.run_id, info.run_name, info.experiment_id, run.data.params, run.data.tags)
