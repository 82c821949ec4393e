"""Curriculum events in MLflow: their numbers, and each stage visit as a run nested in the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from pixelis.curriculum.visits import OPEN, Visit, visits

VISIT_TAG = "pixelis.visit"
EVENT_SIGNS = {"advance": 1.0, "rollback": -1.0}
EVENT_METRICS = {
    "performance_before": "perf_before",
    "performance_after": "perf_after",
    "performance_drop": "delta",
    "average_performance": "average",
    "rollback_count": "rollback_count",
    "interval": "interval",
}

Event = Mapping[str, Any]


def event_metrics(event: Event) -> dict[str, float]:
    """Return the numbers of an event, `curriculum/*`, without those that it does not have."""
    values = {name: event.get(field) for name, field in EVENT_METRICS.items()}
    values["event"] = EVENT_SIGNS.get(event["kind"])
    values |= {f"mix/{name}": share for name, share in (event.get("mix") or {}).items()}
    return {f"curriculum/{key}": value for key, value in values.items() if value is not None}


def changed_visits(events: Sequence[Event], num_known: int) -> list[Visit]:
    """Return the visits that began or ended with the events after the first `num_known` ones."""
    known = visits(events[:num_known])
    return [
        visit
        for index, visit in enumerate(visits(events))
        if index >= len(known) or visit != known[index]
    ]


def visit_fields(visit: Visit, status: str) -> dict[str, Any]:
    """Return what a visit's run holds, as plain JSON.

    Args:
        visit: open or ended.
        status: that the run gets: RUNNING, FINISHED, KILLED or FAILED.
    """
    length = {} if visit.end is None else {"steps": visit.end - visit.begin}
    delta = {} if visit.delta is None else {"delta": visit.delta}
    numbers: list[tuple[str, float, int]] = [
        *_strata("entry", visit.strata_at_entry, visit.begin),
        *_strata("exit", visit.strata_at_exit, visit.end),
        *((f"visit/{key}", float(value), visit.end or 0) for key, value in length.items()),
        *((f"visit/{key}", float(value), visit.end or 0) for key, value in delta.items()),
    ]
    tags = {
        VISIT_TAG: str(visit.index),
        "pixelis.entry_point": "visit",
        "stage": visit.stage,
        "entered_by": visit.entered_by,
        "outcome": visit.outcome,
        **({"reason": visit.reason} if visit.reason else {}),
        MLFLOW_RUN_NAME: _name(visit),
    }
    params = {"stage": visit.stage, "begin": visit.begin, "entered_by": visit.entered_by}
    params |= {f"mix/{name}": share for name, share in visit.mix.items()}
    return {
        "index": visit.index,
        "status": status,
        "tags": tags,
        "params": {key: str(value) for key, value in params.items()},
        "metrics": numbers,
    }


def _strata(
    when: str, strata: Mapping[str, float] | None, step: int | None
) -> list[tuple[str, float, int]]:
    return [(f"visit/{when}/{name}", value, step or 0) for name, value in (strata or {}).items()]


def _name(visit: Visit) -> str:
    """Name a visit, such as `2 · balanced · steps 100 to 125 · rolled back`."""
    parts = [str(visit.index), visit.stage]
    if visit.outcome == OPEN:
        return " · ".join([*parts, f"from step {visit.begin}"])
    span = f"steps {visit.begin} to {visit.end}"
    return " · ".join([*parts, span, visit.outcome.replace("_", " ")])


def send_visit(
    client: MlflowClient, run_id: str, fields: Mapping[str, Any], timestamp: int
) -> None:
    """Bring a visit's run to what `visit_fields` gives; sent again, it changes nothing.

    Args:
        client: Where to.
        run_id: The training's run.
        fields: Of `visit_fields`.
        timestamp: When the visit began or ended, in milliseconds since 1970.
    """
    parent = client.get_run(run_id)
    run = find_visit(client, parent, fields["index"]) or client.create_run(
        parent.info.experiment_id,
        start_time=timestamp,
        tags={MLFLOW_PARENT_RUN_ID: run_id, "mlflow.source.name": "pixelis", **fields["tags"]},
    )
    visit_id = run.info.run_id
    known = run.data.metrics
    points = [
        Metric(key, value, timestamp, step)
        for key, value, step in fields["metrics"]
        if key not in known
    ]
    client.log_batch(visit_id, metrics=points)
    params = [(k, v) for k, v in fields["params"].items() if k not in run.data.params]
    client.log_batch(
        visit_id,
        params=[Param(*item) for item in params],
        tags=[RunTag(*item) for item in fields["tags"].items()],
    )
    if fields["status"] == run.info.status:
        return  # its end is known already
    if fields["status"] == "RUNNING":
        client.update_run(visit_id, status="RUNNING")
    else:
        client.set_terminated(visit_id, fields["status"], end_time=timestamp)


def find_visit(client: MlflowClient, parent: Run, index: int) -> Run | None:
    """Return the run of one visit of a training, or None."""
    query = (
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}' and tags.`{VISIT_TAG}` = '{index}'"
    )
    runs: Sequence[Run] = client.search_runs([parent.info.experiment_id], query, max_results=1)
    return runs[0] if runs else None
