"""Map a function over items in worker processes, in the items' order (`concurrent.futures`).

Results are passed in files. A pool has one pipe for the results of all workers, and every worker
keeps it open: when a worker is killed while it writes a long result, the reader waits forever for
the rest (CPython 3.11; joblib's loky has the same pipe). Messages in the pipe are therefore short.
"""

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pixelis.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items per worker that are submitted before the next result is needed.
AHEAD = 3
# Imported once, in the server that workers are forked from.
PRELOADED = ("pixelis.data_prep.streams",)

_worker_function: Callable[[Any], Any]  # in a worker: the function that it runs


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int, folder: Path
) -> Iterator[Result]:
    """Yield results in the order of the items, the same for every number of workers.

    Args:
        function: sent to each worker once.
        items: the arguments; only a few are read ahead.
        num_workers: number of processes; 1 runs in this process.
        folder: a folder for the files of results.

    Raises:
        DataError: when a worker dies. An exception of the function is raised unchanged.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    resource_tracker.ensure_running()  # before the signal is blocked, since its start unblocks it
    others = set(psutil.Process().children(recursive=True))
    with tempfile.TemporaryDirectory(dir=folder) as results:
        pool = ProcessPoolExecutor(num_workers, context, _start_worker, (function,))
        # Ctrl-C interrupts the main thread alone: no start of a worker is cut off in the middle.
        starter = ThreadPoolExecutor(1, initializer=_block_interrupts)
        waiting: deque[tuple[Future[None], Path]] = deque()
        try:
            for number, item in enumerate(items):
                path = Path(results, str(number))
                waiting.append((starter.submit(_submit, pool, item, path).result(), path))
                if len(waiting) >= AHEAD * num_workers:
                    yield _take(*waiting.popleft())
            while waiting:
                yield _take(*waiting.popleft())
        except BaseException as error:
            # End at once, without waiting for the workers' items or their server's imports.
            for process in set(psutil.Process().children(recursive=True)) - others:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if isinstance(error, BrokenProcessPool):
                raise DataError(
                    "a worker process was killed or could not start (out of memory?); "
                    f"try fewer than num_workers {num_workers}"
                ) from error
            raise
        finally:
            starter.shutdown()
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, item: Any, path: Path) -> Future[None]:
    try:
        return pool.submit(_work, item, path)
    except (EOFError, OSError) as error:  # the server that workers are forked from was killed
        raise BrokenProcessPool from error


def _take(future: Future[None], path: Path) -> Any:
    future.result()
    result = pickle.loads(path.read_bytes())  # written by our own worker
    path.unlink()
    return result


def _block_interrupts() -> None:
    """Block Ctrl-C in this thread; the server of workers and these inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _start_worker(function: Callable[[Any], Any]) -> None:
    global _worker_function
    _worker_function = function
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent closes no pipe, so a worker would wait for its next item forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(item: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(_worker_function(item)))
