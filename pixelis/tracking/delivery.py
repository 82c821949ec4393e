"""The thread that sends a journal to MLflow: in order, in batches, losing nothing in an outage.

Recording never waits for MLflow. A record that the store refuses, or a file that it does not take,
goes to a second file, so that it delays neither later records nor the run's end. It is sent again
from time to time, at the run's end, at a resume and by `sync`.
"""

import os
import threading
import time
import weakref
from pathlib import Path
from typing import Protocol

from pixelis.tracking.journal import Journal
from pixelis.tracking.messages import WarnOnce, first_line
from pixelis.tracking.record import BATCH_LIMITS, Record, RejectedError

# A round of sending starts when this many bytes wait, or when the oldest record has this age in
# seconds.
MAX_WAITING = 1 << 17
MAX_AGE = 5.0
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between rounds while MLflow is away
OFFER_SECONDS = 300.0  # after which refused records are sent again
# Seconds without a delivery after which waiting ends; fewer for a process that was asked to stop.
TIMEOUT = 90.0
KILL_TIMEOUT = 20.0
# Kinds that no other record depends on, and that may fail while numbers are still accepted.
BULKY = {"file", "text", "png", "table", "model", "trace", "event"}
REPLACED = {"text", "png", "table"}  # the newest record of a name replaces older ones

_alive: "weakref.WeakSet[Delivery]" = weakref.WeakSet()


class Sender(Protocol):
    """The methods of `send.Sender` that `Delivery` uses."""

    def send(self, records: list[Record]) -> None:
        """Send records of one kind; raise RejectedError if MLflow refuses them."""

    def answers(self) -> bool:
        """Return whether MLflow answers and the run accepts records."""


class Delivery:
    """The delivery of a journal's records to MLflow, by the process that holds the journal's lock.

    Args:
        journal: A journal that was acquired.
        sender: Sends the records to MLflow.
        warnings: Logs warnings.
    """

    def __init__(self, journal: Journal, sender: Sender, warnings: WarnOnce) -> None:
        """Set the state; the thread starts with the first record."""
        self.journal = journal
        self.failure: Exception | None = None  # why MLflow did not take the last failed record
        self._sender, self._warnings = sender, warnings
        self.refused = journal.refused()
        self.sent = journal.sent
        self.num_sent = 0
        self._one_by_one_until = 0  # a batch before this position was refused
        self._changed = threading.Condition()
        self._due_at = self._retry_at = 0.0
        self._offer_at = time.monotonic() if self.refused else float("inf")
        self._num_failures = 0
        self._asked = self._answered = 0  # rounds that `flush` requested, and finished ones
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False
        _alive.add(self)

    @property
    def is_done(self) -> bool:
        """Whether MLflow has every record except those that it refused."""
        return self.sent >= self.journal.size and not self.journal.num_unwritten()

    def add(self, record: Record, *, soon: bool = False) -> None:
        """Write a record to the journal; the thread sends it a little later.

        Args:
            record: The record.
            soon: Whether to send it without waiting for others to fill a batch.
        """
        if self._closed:
            return
        try:
            self.journal.append(record)
        except OSError as error:
            self._warnings.warn(
                "disk", f"records for MLflow wait in memory alone ({first_line(error)})"
            )
        with self._changed:
            before, is_new = self._due_at, self._thread is None
            if soon or self.journal.size - self.sent > MAX_WAITING:
                self._due_at = 0.0
            elif self._due_at == float("inf") or is_new:
                self._due_at = time.monotonic() + MAX_AGE
            self._start()
            if self._due_at != before:  # otherwise the thread need not wake up
                self._changed.notify_all()

    def _start(self) -> None:
        # A forked child only records; its parent sends.
        if self._thread is None and not self._closed and self._pid == os.getpid():
            self._thread = threading.Thread(target=self._run, daemon=True, name="journal")
            self._thread.start()

    def _run(self) -> None:
        """Send whenever something is due, until the delivery is closed."""
        while True:
            with self._changed:
                while not self._closed:
                    due = max(min(self._due_at, self._offer_at), self._retry_at)
                    seconds = 0.0 if self._asked > self._answered else due - time.monotonic()
                    if seconds <= 0:
                        break
                    self._changed.wait(min(seconds, threading.TIMEOUT_MAX))
                if self._closed:
                    return
                asked, self._due_at = self._asked, float("inf")
            self.send_rest()
            with self._changed:
                if self._num_failures:
                    self._due_at = 0.0
                self._answered = asked
                self._changed.notify_all()

    def send_rest(self) -> bool:
        """Send the remaining records, oldest first, until MLflow cannot be reached.

        Returns:
            Whether MLflow has every record except those that it refuses.
        """
        self.journal.num_unwritten()  # writes records that a full disk did not take before
        try:
            if time.monotonic() >= self._offer_at:
                self._offer_refused()
            while group := self._next_group():
                self._send_group(group)
        # Stores, drivers and transports raise dozens of types, and none may stop a training.
        except Exception as error:
            with self._changed:
                pause = PAUSES[min(self._num_failures, len(PAUSES) - 1)]
                self._retry_at = time.monotonic() + pause
                self._num_failures += 1
            self.failure = error
            self._warnings.warn(
                "unreachable",
                f"MLflow did not take a record ({first_line(error)}); the training goes on, "
                "records wait on disk and are sent again",
            )
            return False
        if self._num_failures:
            self._num_failures, self.failure = 0, None
            self._warnings.over("unreachable", "MLflow answers again; what waited is delivered")
        return self.is_done

    def _next_group(self) -> list[tuple[Record, int]]:
        """Return the oldest unsent records that fit into one call, each with its end position."""
        group: list[tuple[Record, int]] = []
        for record, end in self.journal.read(self.sent):
            limit = 1 if self.sent < self._one_by_one_until else 0
            if group and record is not None:
                kind = group[0][0].kind
                if record.kind != kind or len(group) >= (limit or BATCH_LIMITS.get(kind, 1)):
                    break
            if record is None or not self._is_wanted(record, end):
                if not group:
                    self._advance(end)
                continue
            group.append((record, end))
        return group

    def _is_wanted(self, record: Record, end: int) -> bool:
        # An earlier process's end is skipped if a resumed one has recorded more since.
        if record.kind == "end":
            return end >= self.journal.size
        return self.journal.kept.has(record)

    def _send_group(self, group: list[tuple[Record, int]]) -> None:
        records, (_, end) = [record for record, _ in group], group[-1]
        try:
            self._sender.send(records)
        except RejectedError as error:
            if not self._sender.answers():  # the run was deleted, but may be restored
                raise
            if len(group) > 1:
                self._one_by_one_until = end
                return
            self._refuse(records[0], error)
        except Exception as error:
            if records[0].kind not in BULKY or not self._sender.answers():
                raise
            self._refuse(records[0], error)
        else:
            self._drop_older(records)
            for record in records:
                self.journal.kept.forget(record.files)
        self.num_sent += len(group)
        self._advance(end)

    def _advance(self, end: int) -> None:
        with self._changed:
            if not self._closed:  # otherwise another process may hold the journal by now
                self.sent = end
                self.journal.save_sent(end)
            self._changed.notify_all()

    def _refuse(self, record: Record, error: Exception) -> None:
        """Keep a record in the file of refused ones, in place of an older one that it replaces."""
        self._drop_older([record])
        self.refused.append(record)
        if isinstance(error, RejectedError):
            self._warnings.warn(
                f"refused {record.kind}",
                f"MLflow refuses {record.kind} {record.name!r} ({first_line(error)}); it is left "
                f"out and kept in {self.journal.refused_path}",
            )
        else:
            self.failure = error
            self._warnings.warn(
                "postponed",
                f"MLflow did not take a record ({first_line(error)}); the training goes on, "
                f"{record.kind} {record.name!r} waits on disk and is offered again",
            )
        self._save_refused()
        self._offer_at = time.monotonic() + OFFER_SECONDS

    def _drop_older(self, records: list[Record]) -> None:
        if self.refused and records[0].kind in REPLACED:
            names = {(record.kind, record.name) for record in records}
            kept = [each for each in self.refused if (each.kind, each.name) not in names]
            if len(kept) < len(self.refused):
                self.refused = kept
                self._save_refused()

    def _save_refused(self) -> None:
        try:
            if not self._closed:
                self.journal.save_refused(self.refused)
        except OSError as error:
            self._warnings.warn("disk", f"what MLflow refuses is not kept ({first_line(error)})")

    def _offer_refused(self) -> None:
        """Send the refused records once more.

        Raises:
            Exception: MLflow does not answer at all.
        """
        self._offer_at = time.monotonic() + OFFER_SECONDS
        for record in list(self.refused):
            try:
                if self.journal.kept.has(record):
                    self._sender.send([record])
            except Exception as error:
                if not self._sender.answers():
                    raise
                if not isinstance(error, RejectedError):
                    self.failure = self.failure or error
                continue
            self.journal.kept.forget(record.files)
            self.refused.remove(record)
            self._save_refused()
        if not self.refused:
            self._offer_at, self.failure = float("inf"), None

    def flush(self, timeout: float = TIMEOUT) -> bool:
        """Wait until MLflow has everything, and return whether it does.

        The wait ends when MLflow does not answer, or has taken nothing for `timeout` seconds.
        """
        with self._changed:
            if self._closed or self._pid != os.getpid():
                return True
            if self.is_done and self._offer_at > time.monotonic():
                return True
            self._start()
            self._asked += 1
            mine, seen = self._asked, self.sent
            self._changed.notify_all()
            until = time.monotonic() + timeout
            while self._answered < mine and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
                if self.sent != seen:
                    seen, until = self.sent, time.monotonic() + timeout
            return self.is_done

    def close(self, timeout: float = TIMEOUT, *, keep: bool = True) -> Path | None:
        """Send what can be sent in limited time and release the journal.

        Args:
            timeout: Seconds without a delivery after which to give up.
            keep: Whether the journal stays even if MLflow has everything.

        Returns:
            The journal's path if records are left for `sync`, else None.
        """
        if self._pid != os.getpid():  # in a forked child: the parent still uses it
            return None
        try:
            with self._changed:
                if self.refused:
                    self._offer_at = 0.0
            self.flush(timeout)
        finally:  # also when the user interrupts the wait
            with self._changed:
                self._closed = True
                lost = self.journal.num_unwritten()
                is_left = not (self.is_done and self.journal.is_delivered)
                self._changed.notify_all()
            if lost:
                self._warnings.warn(
                    "lost", f"{lost} records for MLflow are lost: the disk has no room for them"
                )
            if is_left or keep:
                self.journal.release()
            else:
                self.journal.remove()
        return self.journal.path if is_left else None


def _in_child() -> None:
    """Give a forked child a lock that nobody holds; only its parent sends."""
    for delivery in _alive:
        delivery._changed = threading.Condition()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
