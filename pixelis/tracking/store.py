"""Connections to MLflow's store: tables are created once, and no call waits forever."""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pixelis.mlflow_plugin import making_tables, sqlite_file
from pixelis.tracking.privacy import first_line, public

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


def connect() -> MlflowClient:
    """Return a client of the store that the environment names; create a SQLite file's tables.

    MLflow is made to give up within seconds, and without warnings, when a server is away; the
    tracker itself warns once. Environment variables that are already set keep their values.

    Raises:
        MlflowException: The store cannot be opened, for any reason.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    try:
        with making_tables(mlflow.get_tracking_uri()):
            client = MlflowClient()
            retry_locked(client, lambda: client.search_experiments(max_results=1))
    # The store may be a server, a database or a folder: each fails with its own exceptions.
    except Exception as error:
        if isinstance(error, MlflowException):
            raise
        raise MlflowException(public(first_line(error))) from error
    return client


def retry_locked(client: MlflowClient, call: Callable[[], T]) -> T:
    """Return the result of a call; retry it while other processes lock a SQLite file."""
    until = time.monotonic() + (BUSY_SECONDS if sqlite_file(str(client.tracking_uri)) else 0.0)
    while True:
        try:
            return call()
        except MlflowException as error:
            if "database is locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(PAUSE)


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call, or raise TimeoutError when it takes too long.

    A call to a server that hangs cannot be stopped, so it is abandoned in its thread.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # raised again in the caller's thread
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error
