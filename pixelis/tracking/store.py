"""Reaching the store: its tables made once, and no call that waits for it without end."""

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
    # By default MLflow tries a server that is away for minutes, at every call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # Printed from a thread, in the middle of a line, with the server's password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

BUSY_SECONDS = 60.0  # that a store which others write to is asked again
PAUSE = 0.2
ATTEMPT_SECONDS = 10.0  # for a call that is not tried again


def limit_waiting() -> None:
    """Let MLflow give up on a server that is away within seconds, and quietly.

    Variables of the environment that are set already stay. The tracker itself warns once that
    MLflow is away, and when it answers again.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def connect() -> MlflowClient:
    """Return a client of the store that the environment names; a SQLite file has its tables then.

    Raises:
        MlflowException: the store cannot be opened, for whatever reason.
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
    """Return what a call gives; tried again while other processes keep a SQLite file locked.

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


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call that takes no longer than this.

    A server that hangs answers neither yes nor no: the call is then left alone in its thread.

    Raises:
        TimeoutError: It took longer.
        Exception: What the call raises.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        # Whatever it is belongs to the caller.
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
