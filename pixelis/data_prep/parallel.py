"""Map a function over items in worker processes, in the items' order.

Each worker has a pipe of its own, which ends when the worker is killed. In the pools of the
standard library and of joblib all workers write to one pipe: its reader waits forever for the rest
of a result whose writer was killed.
"""

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import psutil

from pixelis.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items per worker that are submitted before the next result is needed.
AHEAD = 3
# Imported once, in the server that workers are forked from.
PRELOADED = ("pixelis.data_prep.streams",)


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """Yield results in the order of the items, the same for every number of workers.

    Args:
        function: sent to each worker once.
        items: the arguments; only a few are read ahead.
        num_workers: number of processes; 1 runs in this process.

    Raises:
        DataError: when a worker dies. An exception of the function is raised unchanged.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    resource_tracker.ensure_running()  # before Ctrl-C is blocked, since its start unblocks it
    others = set(psutil.Process().children(recursive=True))
    worker = threading.local()  # each thread talks to one worker

    def run(item: Item) -> Result:
        try:
            if not hasattr(worker, "connection"):
                # Ctrl-C is for the main thread: the worker inherits that it is blocked here.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                worker.connection, far_end = context.Pipe()
                context.Process(target=_work, args=(function, far_end), daemon=True).start()
                far_end.close()
            worker.connection.send(item)
            result, error = worker.connection.recv()
        except (EOFError, OSError) as broken:
            raise DataError(
                "a worker process was killed or could not start (out of memory?); "
                f"try fewer than num_workers {num_workers}"
            ) from broken
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    threads = ThreadPoolExecutor(num_workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(run, item))
            if len(waiting) >= AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        # End at once, without waiting for the workers' items or their server's imports.
        for process in set(psutil.Process().children(recursive=True)) - others:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        raise
    finally:
        threads.shutdown(cancel_futures=True)


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            item = connection.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(item), None
            except Exception as error:
                answer = None, error
            connection.send(answer)
