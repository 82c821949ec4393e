"""The calls that send each kind of record to MLflow, and the errors that mean a refusal."""

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS
from requests import HTTPError

from pixelis.curriculum.event import Visit, visits
from pixelis.files import describe_full_disk
from pixelis.mlflow_plugin import sqlite_file
from pixelis.tracking.adapters import send_measured, send_model
from pixelis.tracking.journal import Journal, Record
from pixelis.tracking.lookup import EVENTS_FILE
from pixelis.tracking.store import ATTEMPT_SECONDS, call_within
from pixelis.tracking.traces import send_trace
from pixelis.tracking.visits import event_metrics, send_visit

ERROR_TAG = "pixelis.error"
DIED_TAG = "pixelis.died"  # why a run was ended from outside
# Number of records that MLflow takes in one call; one for every other kind.
BATCH_LIMITS = {"metric": 1000, "param": 100, "tag": 100}

# Answers that would not change if the record were sent again.
_FINAL_ERRORS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
_FINAL_STATUS = {400, 404, 405, 411, 413, 414, 415, 422, 501}


class RejectedError(Exception):
    """A refusal of a record by MLflow that trying again would not change."""


class Sender:
    """The sender of one run's records; sending a record again changes nothing."""

    def __init__(self, client: MlflowClient, journal: Journal, *, has_past: bool) -> None:
        """Read the events that were sent before."""
        self._client, self._run_id, self._journal = client, journal.run_id, journal
        self._has_past = has_past
        self._steps: dict[str, set[int]] = {}  # key -> steps that MLflow has, read once per key
        self._events = journal.events(journal.sent)
        self._visits: dict[int, Visit] = {}  # index -> what MLflow has of it
        self._senders: dict[str, Callable[[Record], None]] = {
            "file": self._send_file,
            "table": self._send_table,
            "dataset": self._send_dataset,
            "event": self._send_event,
            "model": self._send_model,
            "measured": lambda record: send_measured(client, self._run_id, record.value),
            "trace": self._send_trace,
            "end": self._send_end,
        }
        self._batches: dict[str, Callable[[Sequence[Record]], Any]] = {
            "metric": self._send_metrics,
            "param": lambda records: client.log_batch(
                self._run_id, params=[Param(r.name, r.value) for r in records]
            ),
            "tag": lambda records: client.log_batch(
                self._run_id, tags=[RunTag(r.name, r.value) for r in records]
            ),
        }

    def answers(self) -> bool:
        """Return whether MLflow answers and the run accepts records."""
        try:
            run = call_within(ATTEMPT_SECONDS, lambda: self._client.get_run(self._run_id))
        # The store may be a server, a database or a folder: each fails with its own exceptions.
        except Exception:
            return False
        return bool(run.info.lifecycle_stage == "active")

    def send(self, records: Sequence[Record]) -> None:
        """Send records of one kind, at most `BATCH_LIMITS` of them, in order.

        Raises:
            RejectedError: MLflow refuses at least one of them.
            Exception: Any error of the client, its transport or its store.
        """
        kind = records[0].kind
        try:
            if kind in self._batches:
                self._batches[kind](records)
            elif kind in self._senders:
                self._senders[kind](records[0])
            else:  # of a newer version
                choices = ", ".join([*self._batches, *self._senders])
                raise RejectedError(f"Unknown kind of record {kind!r}. Choices: {choices}")
        except (FileNotFoundError, NotImplementedError) as error:  # a store without traces
            raise RejectedError(str(error)) from error
        except MlflowException as error:
            if error.error_code in _FINAL_ERRORS:
                raise RejectedError(str(error)) from error
            file = sqlite_file(str(self._client.tracking_uri))
            if file is not None and "disk is full" in str(error):
                raise OSError(errno.ENOSPC, describe_full_disk(file), str(file)) from error
            raise
        except HTTPError as error:  # from an artifact proxy, or from a gateway in front of it
            if error.response is not None and error.response.status_code in _FINAL_STATUS:
                raise RejectedError(str(error)) from error
            raise

    def _send_metrics(self, records: Sequence[Record]) -> None:
        fresh = {(r.name, r.step): r for r in reversed(records) if not self._is_there(r)}
        if fresh:
            points = [Metric(r.name, r.value, r.timestamp, r.step) for r in fresh.values()]
            self._client.log_batch(self._run_id, metrics=points[::-1])
        for record in records if self._has_past else ():
            self._steps[record.name].add(record.step)

    def _is_there(self, record: Record) -> bool:
        if not self._has_past:
            return False
        if record.name not in self._steps:
            history = self._client.get_metric_history(self._run_id, record.name)
            self._steps[record.name] = {metric.step for metric in history}
        return record.step in self._steps[record.name]

    def _send_event(self, record: Record) -> None:
        """Send an event's numbers, the visits that it began and ended, and the table of events."""
        event = record.value
        if event not in self._events:
            self._events.append(event)
        before = self._events[: self._events.index(event)]
        # One value per step: the first event's.
        taken = {key for e in before if e["step"] == event["step"] for key in event_metrics(e)}
        self._send_metrics(
            [
                Record("metric", key, float(value), event["step"], record.timestamp)
                for key, value in event_metrics(event).items()
                if key not in taken
            ]
        )
        for visit in visits(self._events):
            if self._visits.get(visit.index) != visit:
                send_visit(self._client, self._run_id, visit, "RUNNING", record.timestamp)
                self._visits[visit.index] = visit
        events: Any = self._events  # MLflow takes lists too
        self._client.log_dict(self._run_id, events, EVENTS_FILE)

    def _file_of(self, record: Record) -> Path:
        path = self._journal.find_file(record)
        if path is None:
            raise FileNotFoundError(f"{record.value['path']} is not there any more")
        return path

    def _send_file(self, record: Record) -> None:
        path, folder = self._file_of(record), str(PurePosixPath(record.name).parent)
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), record.name or None)
        else:
            name = None if folder == "." else folder
            self._client.log_artifact(self._run_id, str(path), name)

    def _send_table(self, record: Record) -> None:
        """Send a table's file, and list it in the tag that the UI reads."""
        self._send_file(record)
        tags = self._client.get_run(self._run_id).data.tags
        tables = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": record.name, "type": "table"}
        if entry not in tables:
            content = json.dumps([*tables, entry])
            self._client.set_tag(self._run_id, MLFLOW_LOGGED_ARTIFACTS, content)

    def _send_dataset(self, record: Record) -> None:
        fields = dict(record.value)
        tag = InputTag("mlflow.data.context", fields.pop("context"))
        dataset = Dataset(name=record.name, **fields)
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, [tag])])

    def _send_model(self, record: Record) -> None:
        fields, step = record.value, record.value["step"]
        if step is None:  # the adapter from the end of a visit
            ended = [v.end for v in visits(self._events) if v.index == fields["visit"]]
            step = next(filter(None, ended), None) or int(self._events[-1]["step"])
        events = [event for event in self._events if event["step"] <= step]
        filled = {**fields, "step": step, "events": events}
        send_model(self._client, self._run_id, self._file_of(record), filled)

    def _send_trace(self, record: Record) -> None:
        fields = json.loads(self._file_of(record).read_text(encoding="utf-8"))
        send_trace(self._client, self._run_id, record.name, fields, record.timestamp)

    def _send_end(self, record: Record) -> None:
        """End the run and an open visit with the time of their end, not of sending."""
        status, error = record.value["status"], record.value.get("error")
        if self._journal.is_finished:
            status, error = "FINISHED", None
        if error:
            self._client.set_tag(self._run_id, ERROR_TAG, error)
        for visit in visits(self._events):
            if visit.end is None:
                send_visit(self._client, self._run_id, visit, status, record.timestamp)
        if status != "KILLED" and DIED_TAG in self._client.get_run(self._run_id).data.tags:
            # Others took it for dead, since a run that was deleted for a time is silent meanwhile.
            self._client.delete_tag(self._run_id, DIED_TAG)
        self._client.set_terminated(self._run_id, status, record.timestamp or None)
