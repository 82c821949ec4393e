"""How one kind of record reaches MLflow, and which answers mean that it never will."""

import base64
import errno
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from requests import HTTPError

from pixelis.files import describe_full_disk
from pixelis.mlflow_plugin import sqlite_file
from pixelis.tracking.adapters import send_model
from pixelis.tracking.measured import send_measured
from pixelis.tracking.traces import send_trace
from pixelis.tracking.visits import send_visit

# What MLflow takes in one call; everything else goes one by one.
BATCH_LIMITS: dict[str, int] = {"metric": 1000, "param": 100, "tag": 100}

# Answers that stay the same however often the record is sent again.
_FINAL_ERRORS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}

_FINAL_STATUS = {400, 404, 405, 411, 413, 414, 415, 422, 501}


class RejectedError(Exception):
    """A record that cannot be delivered now or later."""


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to tell MLflow; plain enough to wait on disk as a line of JSON.

    Attributes:
        kind: What it is: a key of `_SENDERS`.
        name: The key of a metric, parameter or tag; the path inside the run's artifacts otherwise.
        value: A number, a text, rows, or (kind `png`) base64; for `file` the local path.
        step: The optimiser step of a metric.
        timestamp: Milliseconds since 1970, when it was recorded, not delivered: MLflow drops
            a metric that comes twice with the same timestamp, so sending again is harmless.
        files: A folder of the spool that the record needs and that goes when it has arrived.
    """

    kind: str
    name: str
    value: Any
    step: int = 0
    timestamp: int = 0
    files: str = ""

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), default=str)


def send(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    """Deliver records of one kind, at most `BATCH_LIMITS` of them.

    Args:
        client: Where to.
        run_id: The run they belong to.
        records: Of one kind, in order.

    Raises:
        RejectedError: MLflow will never take them (or one of them).
        Exception: Whatever the client, its transport or its store raises when it cannot be reached.
    """
    kind = records[0].kind
    if kind not in _SENDERS:  # of a spool that a newer version wrote
        raise RejectedError(f"Unknown kind of record {kind!r}. Choices: {', '.join(_SENDERS)}")
    try:
        _SENDERS[kind](client, run_id, records)
    except MlflowException as error:
        if error.error_code in _FINAL_ERRORS:
            raise RejectedError(str(error)) from error
        file = sqlite_file(str(client.tracking_uri))
        if file is not None and "disk is full" in str(error):
            raise OSError(errno.ENOSPC, describe_full_disk(file), str(file)) from error
        raise
    except HTTPError as error:  # of an artifact proxy, or of what stands before it
        if error.response is not None and error.response.status_code in _FINAL_STATUS:
            raise RejectedError(str(error)) from error
        raise


def _send_metrics(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    points = [Metric(r.name, r.value, r.timestamp, r.step) for r in records]
    client.log_batch(run_id, metrics=points)


def _send_params(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    client.log_batch(run_id, params=[Param(r.name, r.value) for r in records])


def _send_tags(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    client.log_batch(run_id, tags=[RunTag(r.name, r.value) for r in records])


def _send_text(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    _send_bytes(client, run_id, records[0].name, str(records[0].value).encode())


def _send_png(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    _send_bytes(client, run_id, records[0].name, base64.b64decode(records[0].value))


def _send_bytes(client: MlflowClient, run_id: str, name: str, content: bytes) -> None:
    target = PurePosixPath(name)
    with tempfile.TemporaryDirectory(prefix="pixelis-") as folder:
        path = Path(folder) / target.name
        path.write_bytes(content)
        client.log_artifact(run_id, str(path), _folder(str(target.parent)))


def _send_table(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    rows, name = records[0].value, records[0].name
    columns = list(dict.fromkeys(key for row in rows for key in row))
    folder = _folder(str(PurePosixPath(name).parent))
    if any(artifact.path == name for artifact in client.list_artifacts(run_id, folder)):
        # MLflow would append: a run that was stopped and taken up again would have its rows twice.
        data = [[row.get(key) for key in columns] for row in rows]
        content = json.dumps({"columns": columns, "data": data}, ensure_ascii=False)
        _send_bytes(client, run_id, name, content.encode())
        return
    client.log_table(run_id, {key: [row.get(key) for row in rows] for key in columns}, name)


def _send_file(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    path = Path(records[0].value)
    if path.is_dir():
        client.log_artifacts(run_id, str(path), _folder(records[0].name))
    elif path.is_file():
        client.log_artifact(run_id, str(path), _folder(records[0].name))
    else:
        raise RejectedError(f"{path} is not there any more")


def _send_dataset(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    fields = dict(records[0].value)
    tag = InputTag("mlflow.data.context", fields.pop("context"))
    client.log_inputs(run_id, [DatasetInput(Dataset(name=records[0].name, **fields), [tag])])


def _send_visit(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    send_visit(client, run_id, records[0].value, records[0].timestamp)


def _send_model(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    try:
        send_model(client, run_id, records[0].value)
    except FileNotFoundError as error:
        raise RejectedError(str(error)) from error


def _send_measured(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    send_measured(client, run_id, records[0].value)


def _send_trace(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    try:
        send_trace(client, run_id, records[0].value, records[0].timestamp)
    except NotImplementedError as error:  # a store without spans
        raise RejectedError(f"this store keeps no traces: {error}") from error


def _send_status(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    """End the run; that it ended when it did, not when MLflow heard of it, is in the timestamp."""
    client.set_terminated(run_id, records[0].value, records[0].timestamp or None)


def _folder(name: str) -> str | None:
    return name if name not in ("", ".") else None


_SENDERS: dict[str, Callable[[MlflowClient, str, Sequence[Record]], None]] = {
    "metric": _send_metrics,
    "param": _send_params,
    "tag": _send_tags,
    "text": _send_text,
    "png": _send_png,
    "table": _send_table,
    "file": _send_file,
    "dataset": _send_dataset,
    "visit": _send_visit,
    "model": _send_model,
    "measured": _send_measured,
    "trace": _send_trace,
    "status": _send_status,
}
