"""A map over processes that keeps order: little is read ahead, and no worker is left behind."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

from pixelis.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results that wait for their turn, for each worker.
AHEAD = 3
# Imported once, in the server that workers are forked from.
PRELOADED = ("pixelis.data.produce",)

_function: Callable[[Any], Any] | None = None


def _install(function: Callable[[Any], Any]) -> None:
    """What a worker keeps between calls; it ends with its parent, and leaves Ctrl-C to it."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed closes nothing: a worker would wait for its next item for ever.
    # By the pipe between them, not by the number: that may be a zombie's, or another process's.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def start_server() -> None:
    """Start the server of workers with Ctrl-C blocked, which they inherit from their first moment.

    The tracker comes first: starting it unblocks the signal.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(item: Any) -> Any:
    assert _function is not None, "the worker was not set up"
    return _function(item)


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """Results in the order of the items; the same for every number of workers.

    Args:
        function: sent to each worker once.
        items: read as they are needed, a few ahead.
        num_workers: processes; 1 works in this one.

    Raises:
        DataError: when a worker dies. What the function raises is raised here.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    start_server()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_install, initargs=(function,)
    ) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_call, item))
                if len(waiting) >= AHEAD * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed or could not start (out of memory?); "
                f"try fewer than num_workers {num_workers}"
            ) from error
        except BaseException:
            # Nobody waits for what they are at: it may take long.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
