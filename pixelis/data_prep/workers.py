"""A map over processes that keeps order: little is read ahead, and no worker is left behind.

Each worker has a pipe of its own, whose other end nobody but this process holds: one that is killed
in the middle of a result, or of reading an item, ends the pipe. In a pool with one pipe for all
(`concurrent.futures`, CPython 3.11) the others keep it open, and who waits for the rest of that
result waits for ever.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pixelis.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results that wait for their turn, for each worker.
AHEAD = 3
# Imported once, in the server that workers are forked from.
PRELOADED = ("pixelis.data_prep.produce",)
END_SECONDS = 10.0  # that a worker has to end by itself when there is nothing left to do


class _WorkerDiedError(Exception):
    """A worker's pipe has ended before its result."""


class _Worker:
    """A process, the pipe to it, and the thread that waits for its results."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, function))
        try:
            self.process.start()
        finally:
            theirs.close()  # or the pipe would not end with the worker

    def call(self, item: Any) -> Any:
        """The result of one item; what the function raises is raised here."""
        try:
            self.connection.send(item)
            is_result, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise _WorkerDiedError from error
        if is_result:
            return value
        raise value

    def end(self) -> None:
        """Let it end, or end it."""
        self.connection.close()
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Workers:
    """A worker for each thread of a pool, started by it at its first item.

    In the pool's threads, since Ctrl-C only ever interrupts the main one: a start that is cut off
    in the middle would leave a worker that reads half of what it is to do, and says so.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.all: list[_Worker] = []
        self._function = function
        self._mine = threading.local()
        self._starting = threading.Lock()
        self._ended = False

    def call(self, item: Any) -> Any:
        """The result of one item, by this thread's worker."""
        if not hasattr(self._mine, "worker"):
            with self._starting:
                if self._ended:
                    raise _WorkerDiedError
                try:
                    self._mine.worker = _Worker(self._function)
                except (EOFError, OSError) as error:  # the server of workers was killed
                    raise _WorkerDiedError from error
                self.all.append(self._mine.worker)
        return self._mine.worker.call(item)

    def kill(self) -> None:
        """End all at once: nobody waits for what they are at, which may take long."""
        with self._starting:
            self._ended = True
        for worker in self.all:
            worker.process.kill()

    def end(self) -> None:
        """Let all end, when no thread waits for them any more."""
        for worker in self.all:
            worker.end()


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """What a worker does: it ends with its parent, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = True, function(item)
        # Whatever it is belongs to the caller.
        except Exception as error:
            answer = False, error
        try:
            connection.send(answer)
        except BrokenPipeError:
            return
        # Nothing is sent of what cannot be pickled.
        except Exception as error:
            connection.send((False, RuntimeError(f"{answer[1]!r} cannot be sent: {error}")))


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
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    start_server()
    workers = _Workers(function)
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="worker")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(workers.call, item))
            if len(waiting) >= AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except _WorkerDiedError as error:
        workers.kill()
        raise DataError(
            "a worker process was killed or could not start (out of memory?); "
            f"try fewer than num_workers {num_workers}"
        ) from error
    except BaseException:
        workers.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        workers.end()
