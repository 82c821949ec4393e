"""Reaching the store: its tables made once, however many processes start on a fresh one at once."""

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pixelis.mlflow_plugin import making_tables, sqlite_file
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

    Raises:
        MlflowException: the store cannot be opened, for whatever reason.
    """
    be_impatient()
    try:
        uri = mlflow.get_tracking_uri()
        with making_tables(uri):
            client = MlflowClient()
            patiently(lambda: client.search_experiments(max_results=1), uri)
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        if isinstance(error, MlflowException):
            raise
        raise MlflowException(public(first_line(error))) from error
    return client


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
