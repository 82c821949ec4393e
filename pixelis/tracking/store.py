"""Connections to MLflow's store: tables are created once, and no call waits forever."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pixelis.mlflow_plugin import making_tables, sqlite_file
from pixelis.tracking.messages import first_line
from pixelis.tracking.privacy import public

T = TypeVar("T")

_SETTINGS = {
    # By default MLflow retries for minutes when a server is away, at every call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # MLflow would print it from a thread, in the middle of a line, with the server's password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

BUSY_SECONDS = 60.0  # how long a call is retried while others lock the store
PAUSE = 0.2
ATTEMPT_SECONDS = 10.0  # limit of a call that is not retried


def limit_waiting() -> None:
    """Make MLflow give up within seconds, and without warnings, when a server is away.

    Environment variables that are already set keep their values. The tracker itself warns once when
    MLflow is away and when it answers again.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def connect() -> MlflowClient:
    """Return a client of the store that the environment names; create a SQLite file's tables.

    Raises:
        MlflowException: The store cannot be opened, for any reason.
    """
    limit_waiting()
    try:
        uri = mlflow.get_tracking_uri()
        with making_tables(uri):
            client = MlflowClient()
            retry_locked(lambda: client.search_experiments(max_results=1), uri)
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        if isinstance(error, MlflowException):
            raise
        raise MlflowException(public(first_line(error))) from error
    return client


def retry_locked(call: Callable[[], T], uri: str) -> T:
    """Return the result of a call; retry it while other processes lock a SQLite file.

    Raises:
        MlflowException: The last error of the call.
    """
    until = time.monotonic() + (BUSY_SECONDS if sqlite_file(uri) else 0.0)
    while True:
        try:
            return call()
        except MlflowException as error:
            if "database is locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(PAUSE)


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call, or raise when it takes too long.

    A call to a server that hangs cannot be stopped, so it is abandoned in its thread.

    Raises:
        TimeoutError: The call took longer.
        Exception: The error of the call.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        # Raised again in the caller's thread.
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
