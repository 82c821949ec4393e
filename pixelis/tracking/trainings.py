"""Finished trainings, found by id, by the beginning of an id or by name, and read from MLflow."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from pixelis.errors import UserError
from pixelis.tracking.lookup import RunInfo, candidates, finished_runs, run_info
from pixelis.tracking.send import EVENTS_FILE
from pixelis.tracking.store import connect

SHORT = 8  # characters of an id that are shown, and that a shortened id must have at least
MOST_LISTED = 10
PAGE = 1000


@dataclass(frozen=True)
class TrainingRun:
    """The data of a training in MLflow.

    Attributes:
        info: The run.
        metrics: The newest value of each metric.
        events: Events of the training's curriculum.
        history: The values by step of the requested metrics.
    """

    info: RunInfo
    metrics: Mapping[str, float]
    events: Sequence[Mapping[str, Any]]
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
    try:
        client = connect()
        if names is None:
            runs = _newest(client, experiment, last)
        else:
            runs = [_named(client, name) for name in names]
        distinct = {run.info.run_id: run for run in runs}
        if len(distinct) < 2:
            given = ", ".join(map(_label, distinct.values())) or "none"
            raise UserError(f"two runs or more are compared, got {given}; {_listing(client)}")
        return [_read(client, run, kept) for run in distinct.values()]
    except MlflowException as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"MLflow cannot be read ({reason})") from error


def _newest(client: MlflowClient, experiment: str, last: int) -> list[Run]:
    """Return the newest of the first experiment that has two; else of the first that has one."""
    by_experiment = [
        finished_runs(client, [each.experiment_id], "sft", last)
        for each in candidates(client, experiment)
    ]
    several = [runs for runs in by_experiment if len(runs) > 1]
    chosen = several or [runs for runs in by_experiment if runs]
    return chosen[0][::-1] if chosen else []


def _named(client: MlflowClient, name: str) -> Run:
    """Return the run with an id, a beginning of an id or a name."""
    meant = [
        run
        for run in _all_runs(client)
        if name in (run.info.run_id, run.info.run_name)
        or (len(name) >= SHORT and run.info.run_id.startswith(name))
    ]
    exact = [run for run in meant if run.info.run_id == name] or meant
    if not exact:
        raise UserError(f"no run has the id or the name {name!r}; {_listing(client)}")
    if len(exact) > 1:
        several = ", ".join(map(_label, exact[:MOST_LISTED]))
        raise UserError(f"{name!r} could be {len(exact)} runs: {several}; name one by its id")
    return exact[0]


def _all_runs(client: MlflowClient, query: str = "") -> Iterator[Run]:
    """Yield every run of the store, newest first."""
    everything = client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
    ids, token = [each.experiment_id for each in everything], None
    while True:
        page = client.search_runs(ids, query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _listing(client: MlflowClient) -> str:
    """List the trainings that there are."""
    runs = list(_all_runs(client, "tags.`pixelis.entry_point` = 'sft'"))
    if not runs:
        return "there is no sft run in this store"
    more = f" and {len(runs) - MOST_LISTED} older ones" if len(runs) > MOST_LISTED else ""
    return f"sft runs there are: {', '.join(map(_label, runs[:MOST_LISTED]))}{more}"


def _label(run: Run) -> str:
    return f"{run.info.run_name} ({run.info.run_id[:SHORT]})"


def _read(client: MlflowClient, run: Run, kept: tuple[str, ...]) -> TrainingRun:
    run_id, folder = run.info.run_id, EVENTS_FILE.rpartition("/")[0]
    if not any(each.path == EVENTS_FILE for each in client.list_artifacts(run_id, folder)):
        made_by = run.data.tags.get("pixelis.entry_point", "another program")
        raise UserError(
            f"the run {_label(run)}, of {made_by}, has no curriculum to compare (no "
            f"{EVENTS_FILE}); {_listing(client)}"
        )
    history = {
        key: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]
        for key in run.data.metrics
        if key.startswith(kept)
    }
    events = mlflow.artifacts.load_dict(f"runs:/{run_id}/{EVENTS_FILE}")
    assert isinstance(events, list)
    return TrainingRun(run_info(run), run.data.metrics, events, history)
