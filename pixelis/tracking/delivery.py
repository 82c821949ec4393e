"""The thread that sends a journal to MLflow: in order, in batches, losing nothing in an outage.

Recording never waits for MLflow. A record that the store refuses, or a file that it does not take,
goes to a second file, so that it delays neither later records nor the run's end. It is offered
again at the run's end, at a resume and by `sync`.
"""

import os
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

from pixelis.tracking.journal import Journal, Record
from pixelis.tracking.privacy import WarnOnce, first_line
from pixelis.tracking.send import BATCH_LIMITS, RejectedError, Sender

PERIOD = 5.0  # seconds between rounds of sending
# Seconds without a delivery after which waiting ends; fewer for a process that was asked to stop.
TIMEOUT = 90.0
KILL_TIMEOUT = 20.0

_alive: "weakref.WeakSet[Delivery]" = weakref.WeakSet()


class Delivery:
    """The delivery of a journal's records to MLflow, by the process that holds its lock."""

    def __init__(self, journal: Journal, sender: Sender, warnings: WarnOnce) -> None:
        """Set the state; the thread starts with the first record."""
        self.journal = journal
        self.failure: Exception | None = None  # why MLflow cannot be reached
        self.refused = journal.refused()
        self.sent = journal.sent
        self.num_sent = 0
        self._sender, self._warnings = sender, warnings
        self._offers = bool(self.refused)  # whether the next round offers the refused records
        self._changed = threading.Condition()
        self._is_asked = self._is_sending = self._closed = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        _alive.add(self)

    @property
    def is_done(self) -> bool:
        """Whether MLflow has every record except those that it refused."""
        return self.sent >= self.journal.size and not self.journal.num_unwritten

    def add(self, record: Record, content: bytes | None = None) -> None:
        """Write a record to the journal; the thread sends it a little later, an event at once."""
        with self._changed:
            if self._closed:
                return
            try:
                self.journal.append(record, content)
            except OSError as error:
                self._warnings.warn(
                    "disk", f"records for MLflow wait in memory alone ({first_line(error)})"
                )
            self._start()
            if record.kind == "event":
                self._is_asked = True
                self._changed.notify_all()

    def _start(self) -> None:
        # A forked child only records; its parent sends.
        if self._thread is None and self._pid == os.getpid():
            self._thread = threading.Thread(target=self._run, daemon=True, name="journal")
            self._thread.start()

    def _run(self) -> None:
        """Send every few seconds, and when `flush` asks, until the delivery is closed."""
        while True:
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._is_asked, PERIOD)
                if self._closed:
                    return
                self._is_asked, self._is_sending = False, True
            self.send_rest()

    def send_rest(self) -> bool:
        """Send the remaining records, oldest first, until MLflow cannot be reached."""
        try:
            if self._offers:
                self._offer_refused()
            while group := self._next_group():
                self._send_group(group)
        # Stores, drivers and transports raise dozens of types, and none may stop a training.
        except Exception as error:
            self.failure = error
            self._warnings.warn(
                "unreachable",
                f"MLflow did not take a record ({first_line(error)}); the training goes on, "
                "records wait on disk and are sent again",
            )
            return False
        if self.failure is not None:
            self.failure = None
            self._warnings.over("unreachable", "MLflow answers again; what waited is delivered")
        return self.is_done

    def _next_group(self) -> list[tuple[Record, int]]:
        """Return the oldest unsent records that fit into one call, each with its end position."""
        with self._changed, suppress(OSError):
            self.journal.write()  # what a full disk did not take: files that were sent are gone
        group: list[tuple[Record, int]] = []
        for record, end in self.journal.read(self.sent):
            if record is None or not self._is_wanted(record):
                if group:
                    break
                self._advance(end)
                continue
            kind = group[0][0].kind if group else record.kind
            if record.kind != kind or len(group) >= BATCH_LIMITS.get(kind, 1):
                break
            group.append((record, end))
        return group

    def _is_wanted(self, record: Record) -> bool:
        # An earlier process's end is skipped if a resumed one has recorded more since.
        if record.kind == "end":
            return record == self.journal.end
        return not record.files or self.journal.find_file(record) is not None

    def _send_group(self, group: list[tuple[Record, int]]) -> None:
        try:
            self._sender.send([record for record, _ in group])
        except Exception as error:
            if not self._is_refusal(group[0][0], error):
                raise
            if len(group) > 1:
                for pair in group:
                    self._send_group([pair])
                return
            self._refuse(group[0][0], error)
        else:
            for record, _ in group:
                self.journal.forget(record)
        self.num_sent += len(group)
        self._advance(group[-1][1])

    def _is_refusal(self, record: Record, error: Exception) -> bool:
        """Return whether the fault is the record, not a store that is away or a deleted run.

        Files may fail while numbers are still accepted, and no other record depends on them.
        """
        is_number = record.kind in (*BATCH_LIMITS, "end")
        return (isinstance(error, RejectedError) or not is_number) and self._sender.answers()

    def _advance(self, end: int) -> None:
        with self._changed:
            if not self._closed:  # otherwise another process may hold the journal by now
                self.sent = end
                with suppress(OSError):  # on a full disk; sending a record again is harmless
                    self.journal.save_sent(end)
            self._changed.notify_all()

    def _refuse(self, record: Record, error: Exception) -> None:
        self.refused.append(record)
        self._warnings.warn(
            f"refused {record.kind}",
            f"MLflow did not take a record ({first_line(error)}); the training goes on, "
            f"{record.kind} {record.name!r} is kept in {self.journal.refused_path} and offered "
            "again",
        )
        self._save_refused()

    def _save_refused(self) -> None:
        try:
            if not self._closed:
                self.journal.save_refused(self.refused)
        except OSError as error:
            self._warnings.warn("disk", f"what MLflow refuses is not kept ({first_line(error)})")

    def _offer_refused(self) -> None:
        """Send the refused records once more."""
        for record in list(self.refused):
            try:
                if self._is_wanted(record):
                    self._sender.send([record])
            except Exception:
                if not self._sender.answers():
                    raise
                continue
            self.journal.forget(record)
            self.refused.remove(record)
        self._save_refused()
        self._offers = False

    def flush(self, timeout: float = TIMEOUT) -> bool:
        """Wait until MLflow has everything, and return whether it does.

        The wait ends when MLflow does not answer, or has taken nothing for `timeout` seconds.
        """
        with self._changed:
            if self._closed or self._pid != os.getpid() or (self.is_done and not self._offers):
                return True
            self._start()
            self._is_asked = True
            self._changed.notify_all()
            seen, until = self.sent, time.monotonic() + timeout
            while (self._is_asked or self._is_sending) and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
                if self.sent != seen:
                    seen, until = self.sent, time.monotonic() + timeout
            return self.is_done

    def _send_unwritten(self) -> None:
        """Send what a full disk did not take from memory: the run's end and numbers, not files."""
        for record in self.journal.take_lines():
            with suppress(Exception):  # of any store or transport
                self._sender.send([record])

    def close(self, timeout: float = TIMEOUT, *, keep: bool = True) -> Path | None:
        """Send what can be sent in limited time and release the journal.

        Returns:
            The journal's path if records are left for `sync`, else None.
        """
        if self._pid != os.getpid():  # in a forked child: the parent still uses it
            return None
        try:
            self._offers = bool(self.refused)
            self.flush(timeout)
            if self.sent >= self.journal.size:
                self._send_unwritten()
        finally:  # also when the user interrupts the wait
            with self._changed:
                self._closed = True
                with suppress(OSError):
                    self.journal.write()
                lost = self.journal.num_unwritten
                is_left = not (self.is_done and self.journal.is_delivered)
                self._changed.notify_all()
            if lost:
                self._warnings.warn(
                    "lost", f"{lost} records for MLflow are lost: the disk has no room for them"
                )
            self.journal.close(is_delivered=not is_left, keep=keep)
        return self.journal.path if is_left else None


def _in_child() -> None:
    """Give a forked child a lock that nobody holds; only its parent sends."""
    for delivery in _alive:
        delivery._changed = threading.Condition()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
