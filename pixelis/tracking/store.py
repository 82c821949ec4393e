"""Reaching the store: its tables made once, however many processes start on a fresh one at once."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from pixelis.tracking.console import first_line
from pixelis.tracking.source import public

T = TypeVar("T")


_SETTINGS = {
    # MLflow's own patience with a server that is away is minutes a call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # Printed from a thread, in the middle of a line, with the server's password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

MAKING_SECONDS = 120.0  # that another process has to make the tables
BUSY_SECONDS = 60.0  # that a store which others write to is asked again
PAUSE = 0.2


def be_impatient() -> None:
    """Let MLflow give up on a server that is away within seconds, and quietly, unless told not to.

    The tracker itself says once that MLflow is away, and when it answers again.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def connect() -> MlflowClient:
    """A client of the store that the environment names; a SQLite file has its tables after this.

    Several processes that make the tables of one file at once would fail, all but one.

    Raises:
        MlflowException: the store cannot be opened, for whatever reason.
    """
    be_impatient()
    try:
        return _connect()
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        if isinstance(error, MlflowException):
            raise
        raise MlflowException(public(first_line(error))) from error


def _connect() -> MlflowClient:
    client = MlflowClient()
    file = sqlite_file(str(client.tracking_uri))
    if file is None:
        return client
    lock = FileLock(file.with_name(f".{file.name}.lock"), timeout=MAKING_SECONDS)
    # Where no lock can be, on a read-only disk, there are no tables to make.
    with suppress(OSError, Timeout):
        lock.acquire()
    try:
        patiently(lambda: client.search_experiments(max_results=1), str(client.tracking_uri))
    finally:
        lock.release()
    return client


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None of any other."""
    try:
        place = make_url(uri)
    except ArgumentError:  # a folder
        return None
    if place.get_backend_name() != "sqlite" or not place.database:
        return None
    return Path(place.database)


def patiently(call: Callable[[], T], uri: str) -> T:
    """What a call of the store gives; asked again while other processes keep its file locked.

    Raises:
        MlflowException: as the call does, at last.
    """
    until = time.monotonic() + (BUSY_SECONDS if sqlite_file(uri) else 0.0)
    while True:
        try:
            return call()
        except MlflowException as error:
            if "database is locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(PAUSE)
