"""What is on its way from a training to MLflow: in order, in batches, nothing lost in an outage.

Whoever adds a record only queues it. One thread delivers; another one writes down what waits longer
than it should, so that a training that is killed while MLflow is away loses nothing. Neither runs
before the first record, and a forked child has neither: it starts with an empty queue.
"""

import os
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from pixelis.tracking.console import Console, first_line
from pixelis.tracking.courier import Courier, Outcome, Round
from pixelis.tracking.delivery import Record
from pixelis.tracking.patience import PATIENCE
from pixelis.tracking.spool import Spool
from pixelis.tracking.waiting import Waiting

MAX_WAITING = 500  # records that start a delivery ...
MAX_AGE = 5.0  # ... and the age in seconds of the oldest one that does
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between tries while MLflow is away
MOMENT = 0.2  # seconds that a record may wait in memory alone while MLflow is away

_alive: "weakref.WeakSet[Outbox]" = weakref.WeakSet()


class Outbox:
    """Keeps records until MLflow has taken them; never raises because MLflow does.

    Args:
        client: Where records go.
        run_id: The run they belong to.
        spool: Where they wait while MLflow is away.
        resumed: The run has a past: metrics whose (key, step) it already holds are left out.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, spool: Spool, *, resumed: bool = False
    ) -> None:
        """Start with nothing waiting."""
        self.spool = spool
        self.console = Console()
        self.courier = Courier(client, run_id, spool, self.console, resumed=resumed)
        self.failure: Exception | None = None  # of the last try
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        """Nothing waits, and no thread runs."""
        self._changed = threading.Condition()  # held around every use of what follows
        self._waiting = Waiting()
        self._off_disk_since = self._oldest = self._retry_at = 0.0
        self._num_failures = self._num_delivered = 0
        self._asked = self._answered = 0  # deliveries that somebody waits for
        self._generation = 0  # of the threads: those of an older one end
        self._running = False
        self._disk = threading.Lock()  # around the spool; never taken by who holds `_changed`

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def take_up(self, records: Sequence[Record]) -> None:
        """Begin with what an earlier process left on disk."""
        with self._changed:
            self._waiting.append(records, on_disk=True)

    def add(self, records: Sequence[Record]) -> None:
        """Queue records: delivered when many wait or one has waited long."""
        if records:
            with self._changed:
                self._queue(records)

    def replace(self, record: Record) -> None:
        """Queue a record instead of the one of the same kind and name that still waits, if any."""
        with self._changed:
            self._waiting.remove(record.kind, record.name)
            self._queue([record])

    def _queue(self, records: Sequence[Record]) -> None:
        now, before = time.monotonic(), len(self._waiting)
        self._oldest = self._oldest if before else now
        self._off_disk_since = self._off_disk_since if self._waiting.off_disk else now
        self._waiting.append(records)
        self._start()
        # A thread that sleeps until something is due need not hear of every record.
        crowded = before <= MAX_WAITING < len(self._waiting)
        if crowded or self._waiting.urgent or self._waiting.off_disk == len(records):
            self._changed.notify_all()

    def wake(self) -> None:
        """Deliver soon, without waiting for it."""
        with self._changed:
            self._oldest = 0.0
            self._changed.notify_all()

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until everything is delivered, and say whether it is.

        Gives up when MLflow is away, or has taken nothing for `patience` seconds.
        """
        with self._changed:
            if not self._waiting:
                return True
            self._start()
            self._asked += 1
            mine, seen = self._asked, self._num_delivered
            self._changed.notify_all()
            until = time.monotonic() + patience
            while self._answered < mine and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
                if self._num_delivered != seen:
                    seen, until = self._num_delivered, time.monotonic() + patience
            return not self._waiting

    def close(self, patience: float = PATIENCE) -> Path | None:
        """Deliver what can be delivered in bounded time; the rest is on disk.

        Args:
            patience: Seconds without a delivery after which to give up.

        Returns:
            Where the rest is, or None.
        """
        try:
            self.flush(patience)
        finally:  # also when the user has no patience at all
            with self._disk:
                with self._changed:
                    self._running = False
                    self._generation += 1
                    rest = self._waiting.everything()
                    self._waiting.put_back()
                    self._changed.notify_all()
                path = self._leave(rest)
        return path

    def _leave(self, rest: Sequence[Record]) -> Path | None:
        try:
            if not rest:
                self.spool.remove()
                return None
            self.spool.rewrite(rest)
            self.spool.release()
        except OSError as error:
            self.console.warn(
                "disk", f"{len(rest)} records for MLflow are lost ({first_line(error)})"
            )
            return None
        return self.spool.path

    def _start(self) -> None:
        if not self._running:
            self._running = True
            self._generation += 1
            for work in (self._deliver_on, self._write_down_on):
                threading.Thread(target=work, args=[self._generation], daemon=True).start()

    def _deliver_on(self, generation: int) -> None:
        """Deliver whenever something is due, until the outbox is closed."""
        while True:
            with self._changed:
                while generation == self._generation:
                    seconds = self.due_in(time.monotonic())
                    if seconds is not None and seconds <= 0:
                        break
                    self._changed.wait(seconds)
                else:
                    return
                asked = self._asked
            self.deliver()
            with self._changed:
                if generation == self._generation:
                    self._answered = asked
                    self._changed.notify_all()

    def due_in(self, now: float) -> float | None:
        """Seconds until a delivery is due; None while nothing waits."""
        if self._asked > self._answered:
            return 0.0
        if not self._waiting:
            return None
        if self._num_failures:
            return self._retry_at - now
        return 0.0 if len(self._waiting) > MAX_WAITING else self._oldest + MAX_AGE - now

    def deliver(self) -> bool:
        """Send what waits, oldest first, until MLflow cannot be reached; the thread's own work.

        Returns:
            Whether nothing waits any more.
        """
        generation, attempt = self._generation, Round(self.courier)
        while True:
            with self._changed:
                if generation != self._generation:  # closed: the rest is on disk
                    return False
                group = self._waiting.take()
            if not group:
                break
            try:
                outcome = attempt.carry(group)
            # Stores, drivers and transports raise dozens of types, and none may stop a training.
            except Exception as error:
                self._fail(error, generation)
                return False
            self._settle(group, outcome, generation)
        if attempt.failure:
            self._fail(attempt.failure, generation)
            return False
        if self._num_failures:
            self._num_failures, self.failure = 0, None
            self.console.again("unreachable")
            self.console.say("MLflow answers again; what waited is delivered")
        with self._disk:
            if not self._waiting:  # else what came meanwhile may be on disk
                self._leave(())
        return True

    def _fail(self, error: Exception, generation: int) -> None:
        with self._changed:
            if generation != self._generation:
                return
            self._waiting.put_back()
            self._retry_at = time.monotonic() + PAUSES[min(self._num_failures, len(PAUSES) - 1)]
            self._num_failures += 1
            self.failure = error
            self._changed.notify_all()
        self.console.warn(
            "unreachable",
            f"MLflow did not take a record ({first_line(error)}); the training goes on, "
            "records wait on disk and are sent again",
        )

    def _settle(self, group: Sequence[Record], outcome: Outcome, generation: int) -> None:
        """Forget what has arrived or is refused; a refused batch is sent one by one."""
        with self._changed:
            if generation != self._generation:
                return
            if outcome != "settled":
                self._waiting.split() if outcome == "split" else self._waiting.pass_over()
                return
            self._waiting.drop()
            self._num_delivered += len(group)
            self._oldest = time.monotonic()
            self._changed.notify_all()
        for record in group:
            if record.files:
                self.spool.forget(record.files)

    def _write_down_on(self, generation: int) -> None:
        """Write down what waits too long, until the outbox is closed."""
        while True:
            with self._changed:
                while generation == self._generation:
                    moment = MOMENT if self._num_failures else MAX_AGE + 1
                    seconds = self._off_disk_since + moment - time.monotonic()
                    if self._waiting.urgent or (self._waiting.off_disk and seconds <= 0):
                        break
                    self._changed.wait(seconds if self._waiting.off_disk else None)
                else:
                    return
            if not self.write_down():
                time.sleep(PAUSES[-1])  # a full disk: what waits is in memory

    def write_down(self) -> bool:
        """Put what waits in memory alone on disk; whether the disk took it."""
        with self._disk:
            with self._changed:
                fresh = self._waiting.take_off_disk()
            try:
                if fresh:
                    self.spool.append(fresh)
                    if self.spool.overgrown:
                        with self._changed:
                            everything = self._waiting.everything()
                        self.spool.rewrite(everything)
            except OSError as error:
                with self._changed:
                    self._waiting.put_off_disk(len(fresh))
                self.console.warn(
                    "disk", f"records for MLflow wait in memory alone ({first_line(error)})"
                )
                return False
        return True


def _leave_to_parent() -> None:
    """In a forked child: what waits, and who waits for it, is the parent's."""
    for outbox in _alive:
        outbox._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
