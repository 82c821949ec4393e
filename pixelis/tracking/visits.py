"""Curriculum events in MLflow: their metrics, and a nested run for each visit of a stage."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from pixelis.curriculum.event import OPEN, Visit

VISIT_TAG = "pixelis.visit"
EVENT_SIGNS = {"advance": 1.0, "rollback": -1.0}
EVENT_METRICS = {
    "performance_before": "perf_before",
    "performance_after": "perf_after",
    "performance_drop": "delta",
    "rollback_count": "rollback_count",
}

Event = Mapping[str, Any]


def event_metrics(event: Event) -> dict[str, float]:
    """Return the numbers of an event that are charted, as `curriculum/*`, without missing ones."""
    values = {name: event.get(field) for name, field in EVENT_METRICS.items()}
    values["event"] = EVENT_SIGNS.get(event["kind"])
    values |= {f"mix/{name}": share for name, share in (event.get("mix") or {}).items()}
    return {f"curriculum/{key}": value for key, value in values.items() if value is not None}


def send_visit(
    client: MlflowClient, run_id: str, visit: Visit, status: str, timestamp: int
) -> None:
    """Create or update a visit's nested run; sending it again changes nothing."""
    parent = client.get_run(run_id)
    tags = {
        VISIT_TAG: str(visit.index),
        "pixelis.entry_point": "visit",
        "stage": visit.stage,
        "entered_by": visit.entered_by,
        "outcome": visit.outcome,
        **({"reason": visit.reason} if visit.reason else {}),
        MLFLOW_RUN_NAME: _name(visit),
    }
    run = find_visit(client, parent, visit.index) or client.create_run(
        parent.info.experiment_id,
        start_time=timestamp,
        tags={MLFLOW_PARENT_RUN_ID: run_id, "mlflow.source.name": "pixelis", **tags},
    )
    params = {"stage": visit.stage, "begin": visit.begin, "entered_by": visit.entered_by}
    params |= {f"mix/{name}": share for name, share in visit.mix.items()}
    numbers = [*_numbers("entry", visit.strata_at_entry, visit.begin)]
    if visit.end is not None:
        numbers += _numbers("exit", visit.strata_at_exit, visit.end)
        numbers += [("visit/steps", visit.end - visit.begin, visit.end)]
    if visit.delta is not None:
        numbers += [("visit/delta", visit.delta, visit.end or 0)]
    visit_id, status = run.info.run_id, status if visit.end is None else "FINISHED"
    points = [
        Metric(key, float(value), timestamp, step)
        for key, value, step in numbers
        if key not in run.data.metrics
    ]
    client.log_batch(visit_id, metrics=points)
    client.log_batch(
        visit_id,
        params=[Param(k, str(v)) for k, v in params.items() if k not in run.data.params],
        tags=[RunTag(*item) for item in tags.items()],
    )
    if status == "RUNNING" != run.info.status:
        client.update_run(visit_id, status="RUNNING")
    elif status != run.info.status:  # otherwise its end was sent before
        client.set_terminated(visit_id, status, end_time=timestamp)


def _numbers(
    name: str, strata: Mapping[str, float] | None, step: int
) -> list[tuple[str, float, int]]:
    """Return key, value and step of each measurement at a visit's entry or exit."""
    return [(f"visit/{name}/{d}", value, step) for d, value in (strata or {}).items()]


def _name(visit: Visit) -> str:
    """Name a visit, such as `2 · balanced · steps 100 to 125 · rolled back`."""
    parts = [str(visit.index), visit.stage]
    if visit.outcome == OPEN:
        return " · ".join([*parts, f"from step {visit.begin}"])
    span = f"steps {visit.begin} to {visit.end}"
    return " · ".join([*parts, span, visit.outcome.replace("_", " ")])


def find_visit(client: MlflowClient, parent: Run, index: int) -> Run | None:
    """Return the run of one visit of a training, or None."""
    query = (
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}' and tags.`{VISIT_TAG}` = '{index}'"
    )
    runs: Sequence[Run] = client.search_runs([parent.info.experiment_id], query, max_results=1)
    return runs[0] if runs else None
