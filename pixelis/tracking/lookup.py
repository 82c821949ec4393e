"""Lookup of earlier results: an experiment, the newest finished run, an adapter."""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from pixelis.errors import CheckpointError, UserError
from pixelis.tracking.store import connect

FINAL_ADAPTER = "adapters/final"
# Tag of a data-prep run: digest of its files, by which runs that read the files find it.
DATA_TAG = "pixelis.data_digest"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


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


def find_run(experiment: str, entry_point: str = "sft") -> RunInfo:
    """Return the newest finished run of an entry point.

    The search begins in the experiment that the environment names (`mlflow run` sets it) and
    continues in `experiment`.

    Args:
        experiment: The experiment's name.
        entry_point: The run's MLproject entry point.

    Raises:
        UserError: There is no such run (the text lists experiments that have one), or MLflow cannot
            be read.
    """
    try:
        client = connect()
        for candidate in candidates(client, experiment):
            if runs := finished_runs(client, [candidate.experiment_id], entry_point):
                return run_info(runs[0])
        all_of_them = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
        having = [
            e.name for e in all_of_them if finished_runs(client, [e.experiment_id], entry_point)
        ]
    except MlflowException as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"MLflow cannot be read ({reason})") from error
    others = (
        f"experiments that have one: {', '.join(having)}"
        if having
        else (f"experiments there are: {', '.join(e.name for e in all_of_them)}; none has one")
    )
    raise UserError(f"no finished {entry_point} run in the experiment {experiment!r}; {others}")


def data_tag(digests: Mapping[str, str]) -> str:
    """Return one digest of several files: file name -> SHA-256."""
    listed = "\n".join(f"{name} {digest}" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def find_data_run(digests: Mapping[str, str]) -> RunInfo | None:
    """Return the newest finished data-prep run that made exactly these files, or None.

    Args:
        digests: File name -> SHA-256, as in the summary of the data.
    """
    client = connect()
    everything = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
    query = f"attributes.status = 'FINISHED' and tags.`{DATA_TAG}` = '{data_tag(digests)}'"
    runs = client.search_runs(
        [e.experiment_id for e in everything],
        query,
        order_by=["attributes.end_time DESC"],
        max_results=1,
    )
    return run_info(runs[0]) if runs else None


def resolve_adapter(uri: str | None, experiment: str) -> Path:
    """Return a local folder with an adapter in PEFT's layout.

    Args:
        uri: `runs:/<id>[/path]`, `models:/...`, another artifact URI, a local folder, or None for
            the final adapter of the experiment's newest finished sft run.
        experiment: The experiment to search if `uri` is None.

    Returns:
        The folder; a download is deleted when the process ends.

    Raises:
        CheckpointError: The folder cannot be fetched, or holds no adapter.
        UserError: `uri` is None and there is no finished sft run.
    """
    if uri is None:
        uri = f"runs:/{find_run(experiment).run_id}"
    if not uri.startswith(("runs:/", "models:/")) and "://" not in uri:
        return _checked(Path(uri), uri)
    source = f"{uri.rstrip('/')}/{FINAL_ADAPTER}" if _is_bare_run(uri) else uri
    target = tempfile.mkdtemp(prefix="pixelis-adapter-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        folder = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=target)
    except (MlflowException, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(f"the adapter {source} cannot be fetched: {reason}") from error
    return _checked(Path(folder), source)


def _is_bare_run(uri: str) -> bool:
    return uri.startswith("runs:/") and "/" not in uri.removeprefix("runs:/").strip("/")


def _checked(folder: Path, uri: str) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"the adapter {uri} is not a folder")
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"the adapter {uri} is incomplete: {' and '.join(missing)} missing")
    return folder


def candidates(client: MlflowClient, experiment: str) -> list[Experiment]:
    """Return the experiments to search: those of the environment, then the named one."""
    experiments: list[Experiment | None] = []
    if chosen := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        experiments.append(client.get_experiment(chosen))
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        experiments.append(client.get_experiment_by_name(name))
    experiments.append(client.get_experiment_by_name(experiment))
    return [each for each in experiments if each is not None]


def finished_runs(
    client: MlflowClient, experiment_ids: list[str], entry_point: str, most: int = 1
) -> list[Run]:
    """Return the newest finished runs of an entry point."""
    query = f"attributes.status = 'FINISHED' and tags.`pixelis.entry_point` = '{entry_point}'"
    order = ["attributes.end_time DESC"]
    return list(client.search_runs(experiment_ids, query, order_by=order, max_results=most))


def run_info(run: Run) -> RunInfo:
    """Return the fields of a run that the entry points use."""
    info = run.info
    return RunInfo(info.run_id, info.run_name, info.experiment_id, run.data.params, run.data.tags)
