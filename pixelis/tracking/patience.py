"""Calls of MLflow that somebody waits for, but not for ever."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 90.0  # seconds without a delivery after which nobody waits for one ...
KILL_PATIENCE = 20.0  # ... who was told to stop
ATTEMPT_SECONDS = 10.0  # for what is not tried again


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call that takes no longer than this.

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
