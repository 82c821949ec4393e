"""The calls that send each kind of record to MLflow, and the errors that mean a refusal."""

import base64
import errno
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from requests import HTTPError

from pixelis.curriculum.visits import Visit, visits
from pixelis.files import describe_full_disk
from pixelis.mlflow_plugin import sqlite_file
from pixelis.tracking.adapters import send_model
from pixelis.tracking.journal import Journal
from pixelis.tracking.measured import send_measured
from pixelis.tracking.record import Record, RejectedError
from pixelis.tracking.store import ATTEMPT_SECONDS, call_within
from pixelis.tracking.traces import send_trace
from pixelis.tracking.visits import changed_visits, event_metrics, send_visit

EVENTS_FILE = "curriculum/events.json"
ERROR_TAG = "pixelis.error"

# Answers that would not change if the record were sent again.
_FINAL_ERRORS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
_FINAL_STATUS = {400, 404, 405, 411, 413, 414, 415, 422, 501}


class Sender:
    """The sender of one run's records; sending a record again changes nothing.

    Args:
        client: Client of the store.
        journal: The run's journal, with the records' files and earlier events.
        has_past: Whether another process has sent records of this run; metrics at steps that MLflow
            already has are then left out.
    """

    def __init__(self, client: MlflowClient, journal: Journal, *, has_past: bool) -> None:
        """Read the events that were sent before."""
        self._client, self._run_id = client, journal.run_id
        self._journal, self._kept = journal, journal.kept
        self._has_past = has_past
        self._steps: dict[str, set[int]] = {}  # key -> steps that MLflow has, read once per key
        self._events = journal.events(journal.sent)
        self._senders: dict[str, Callable[[Record], None]] = {
            "text": lambda r: self._send_bytes(r.name, str(self._kept.value(r)).encode()),
            "png": lambda r: self._send_bytes(r.name, base64.b64decode(self._kept.value(r))),
            "table": self._send_table,
            "file": self._send_file,
            "dataset": self._send_dataset,
            "event": self._send_event,
            "resume": lambda record: self._send_events(visits(self._events), record),
            "model": self._send_model,
            "measured": lambda r: send_measured(client, self._run_id, self._kept.value(r)),
            "trace": self._send_trace,
            "end": self._send_end,
        }
        self._batches: dict[str, Callable[[Sequence[Record]], None]] = {
            "metric": self._send_metrics,
            "param": self._send_params,
            "tag": self._send_tags,
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
        """Send records of one kind, at most `record.BATCH_LIMITS` of them, in order.

        Raises:
            RejectedError: MLflow refuses at least one of them.
            Exception: Any error of the client, its transport or its store.
        """
        kind = records[0].kind
        if kind not in self._batches and kind not in self._senders:
            # A newer version may have written the journal.
            choices = ", ".join([*self._batches, *self._senders])
            raise RejectedError(f"Unknown kind of record {kind!r}. Choices: {choices}")
        try:
            if kind in self._batches:
                self._batches[kind](records)
            else:
                self._senders[kind](records[0])
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

    def _send_params(self, records: Sequence[Record]) -> None:
        params = [Param(record.name, record.value) for record in records]
        self._client.log_batch(self._run_id, params=params)

    def _send_tags(self, records: Sequence[Record]) -> None:
        tags = [RunTag(record.name, record.value) for record in records]
        self._client.log_batch(self._run_id, tags=tags)

    def _send_event(self, record: Record) -> None:
        """Send an event's numbers, the visits that it began and ended, and the table of events."""
        event = record.value
        if event not in self._events:
            self._events.append(event)
        before = self._events.index(event)
        earlier = [each for each in self._events[:before] if each["step"] == event["step"]]
        taken = {key for each in earlier for key in event_metrics(each)}  # one value per step
        self._send_metrics(
            [
                Record("metric", key, float(value), event["step"], record.timestamp)
                for key, value in event_metrics(event).items()
                if key not in taken
            ]
        )
        changed = {visit.index for visit in changed_visits(self._events[: before + 1], before)}
        # In their current state: an event that was refused at first may come after newer ones.
        now = [visit for visit in visits(self._events) if visit.index in changed]
        self._send_events(now, record)

    def _send_events(self, changed: Sequence[Visit], record: Record) -> None:
        for visit in changed:
            send_visit(self._client, self._run_id, visit, "RUNNING", record.timestamp)
        if self._events:
            table = json.dumps(self._events, indent=2, ensure_ascii=False) + "\n"
            self._send_bytes(EVENTS_FILE, table.encode())

    def _send_bytes(self, name: str, content: bytes) -> None:
        target = PurePosixPath(name)
        with tempfile.TemporaryDirectory(prefix="pixelis-") as folder:
            path = Path(folder) / target.name
            path.write_bytes(content)
            self._client.log_artifact(self._run_id, str(path), _folder(str(target.parent)))

    def _send_table(self, record: Record) -> None:
        rows, name = self._kept.value(record), record.name
        columns = list(dict.fromkeys(key for row in rows for key in row))
        folder = _folder(str(PurePosixPath(name).parent))
        if any(each.path == name for each in self._client.list_artifacts(self._run_id, folder)):
            # MLflow would append the rows, and a resumed run would have them twice.
            data = [[row.get(key) for key in columns] for row in rows]
            content = json.dumps({"columns": columns, "data": data}, ensure_ascii=False)
            self._send_bytes(name, content.encode())
            return
        self._client.log_table(
            self._run_id, {key: [row.get(key) for row in rows] for key in columns}, name
        )

    def _send_file(self, record: Record) -> None:
        path = self._kept.path(record, record.value["path"])
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), _folder(record.name))
        elif path.is_file():
            self._client.log_artifact(self._run_id, str(path), _folder(record.name))
        else:
            raise RejectedError(f"{path} is not there any more")

    def _send_dataset(self, record: Record) -> None:
        fields = dict(record.value)
        tag = InputTag("mlflow.data.context", fields.pop("context"))
        dataset = Dataset(name=record.name, **fields)
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, [tag])])

    def _send_model(self, record: Record) -> None:
        fields: dict[str, Any] = record.value
        folder = self._kept.path(record, fields["path"])
        step = fields["step"]
        if fields["visit"] and step is None:  # the adapter from the end of a visit
            ended = [v.end for v in visits(self._events) if v.index == fields["visit"]]
            step = next(filter(None, ended), None) or int(self._events[-1]["step"])
        events = [event for event in self._events if event["step"] <= step]
        filled = {**fields, "folder": str(folder), "step": step, "events": events}
        try:
            send_model(self._client, self._run_id, filled)
        except FileNotFoundError as error:
            raise RejectedError(str(error)) from error

    def _send_trace(self, record: Record) -> None:
        try:
            send_trace(self._client, self._run_id, self._kept.value(record), record.timestamp)
        except NotImplementedError as error:  # a store without spans
            raise RejectedError(f"this store keeps no traces: {error}") from error

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
        self._client.set_terminated(self._run_id, status, record.timestamp or None)


def _folder(name: str) -> str | None:
    return name if name not in ("", ".") else None
