"""The journal of a run: everything that it records, appended to a file before MLflow hears of it.

`<folder>/journal-<run id>.jsonl` holds a record a line; beside it stand the offset up to which
MLflow has them, the files that unsent records are about, and a lock that the kernel frees when its
process ends. Whoever holds the lock sends what is left from the offset on: the run itself, a
resumed one or `sync`.
"""

import errno
import json
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pixelis.errors import UserError
from pixelis.files import explain_write_errors, write_atomic
from pixelis.tracking.kept_files import KeptFiles
from pixelis.tracking.record import Record, parse_record

PREFIX, SUFFIX = "journal-", ".jsonl"
REFUSED = "refused-"
FINISHED_FILE = "finished.json"  # written by a training that is whole; see `runs.train`
LARGE = 1 << 16  # bytes of a record from which on its value is kept as a file of its own
IN_USE_SECONDS = 30.0  # that a resumed run waits for a `sync` of its records
PATH_KINDS = ("file", "model")  # whose value holds a path, under `path`

_alive: "weakref.WeakSet[Journal]" = weakref.WeakSet()


@dataclass(frozen=True)
class Past:
    """Where a resumed training goes on.

    Attributes:
        folder: With the journal that the checkpoint's training wrote.
        run_id: Its run.
        length: Of the journal in bytes when the checkpoint was saved.
    """

    folder: Path
    run_id: str
    length: int


class Journal:
    """The files of one run's journal; several threads may append."""

    def __init__(self, path: Path) -> None:
        """Touch nothing yet."""
        stem = path.name.removesuffix(SUFFIX)
        self.path = path
        self.run_id = stem.removeprefix(PREFIX).partition(".")[0]
        self.refused_path = path.with_name(REFUSED + path.name.removeprefix(PREFIX))
        self.kept = KeptFiles(path.with_name(f".{stem}.files"))
        self._offset_path = path.with_name(f".{stem}.offset")
        self._lock_path = path.with_name(f".{stem}.lock")
        # Acquired in one thread, released in another.
        self._lock = FileLock(self._lock_path, thread_local=False)
        self._file: int | None = None
        self._unwritten: list[bytes] = []  # what a full disk did not take
        self._large: dict[tuple[str, str], str] = {}  # kind and name -> kept files of the newest
        self._writing = threading.Lock()
        _alive.add(self)

    def acquire(self, seconds: float = 0) -> bool:
        """Take the lock, waiting for it this long; whether this process has it."""
        if not self._lock.is_locked:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                self._lock.acquire(timeout=seconds)
        return self._lock.is_locked

    def release(self) -> None:
        """Close the file and free the lock; everything stays."""
        with self._writing:
            if self._file is not None:
                os.close(self._file)
                self._file = None
        self._lock.release()

    def remove(self) -> None:
        """Remove the journal, of which MLflow has everything, and free the lock."""
        for path in (self.path, self._offset_path, self._lock_path):
            path.unlink(missing_ok=True)
        self.release()

    def append(self, record: Record) -> None:
        """Write a record; it is with the system, and outlives this process, when this returns.

        What the disk does not take waits in memory and is written before the next record.

        Raises:
            OSError: The disk does not take it.
        """
        line = record.to_json().encode() + b"\n"
        if len(line) > LARGE and record.kind not in PATH_KINDS:
            with suppress(OSError):  # a full disk: in memory as a whole
                stored = replace(record, value=None, files=self.kept.keep_value(record.value))
                line = stored.to_json().encode() + b"\n"
                # One that was drawn anew before it was sent need not be sent.
                self.kept.forget(self._large.get((record.kind, record.name), ""))
                self._large[record.kind, record.name] = stored.files
        with self._writing:
            self._unwritten.append(line)
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            self._end_torn_line(self._file)
        while self._unwritten:
            line, before = self._unwritten[0], os.fstat(self._file).st_size
            with explain_write_errors(self.path, len(line)):
                if os.write(self._file, line) < len(line):  # the disk is full now
                    os.ftruncate(self._file, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            del self._unwritten[0]

    def _end_torn_line(self, file: int) -> None:
        """End a line that a kill has cut, so that it is skipped and not written on."""
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")

    def num_unwritten(self) -> int:
        """How many records the disk did not take; it is asked again."""
        with self._writing, suppress(OSError):
            self._write()
        return len(self._unwritten)

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        with suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def position(self) -> int:
        """Return the length in bytes after all that was recorded, which is on disk then."""
        with self._writing:
            if self._file is not None:
                os.fsync(self._file)
            return self.size + sum(map(len, self._unwritten))

    def read(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[Record | None, int]]:
        """Yield the records between two positions, each with the position behind it.

        A line that a kill has torn gives None, and one that is being written ends the reading.
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(begin)
            for line in file:
                begin += len(line)
                if not line.endswith(b"\n") or (end is not None and begin > end):
                    return
                yield parse_record(line), begin

    def events(self, end: int | None = None) -> list[dict[str, Any]]:
        """Return the curriculum events that were recorded up to a position."""
        records = (record for record, _ in self.read(0, end))
        return [record.value for record in records if record and record.kind == "event"]

    @property
    def sent(self) -> int:
        """The position up to which MLflow has the records."""
        try:
            return min(int(self._offset_path.read_text()), self.size)
        except (FileNotFoundError, ValueError):
            return 0

    def save_sent(self, position: int) -> None:
        """Remember up to where MLflow has the records."""
        staged = self._offset_path.with_suffix(".new")
        staged.write_text(str(position))
        os.replace(staged, self._offset_path)

    @property
    def is_delivered(self) -> bool:
        """Whether MLflow has everything."""
        return self.sent >= self.size and not self.refused_path.exists()

    @property
    def is_ended(self) -> bool:
        """Whether the newest record is how the run ended."""
        last = None
        for record, _ in self.read():
            last = record or last
        return last is not None and last.kind == "end"

    @property
    def is_finished(self) -> bool:
        """Whether the training that the journal is of is whole, however its process ended."""
        try:
            finished = json.loads((self.path.parent / FINISHED_FILE).read_text(encoding="utf-8"))
            return bool(finished["run_id"] == self.run_id)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def refused(self) -> list[Record]:
        """Return the records that MLflow has refused so far."""
        if not self.refused_path.is_file():
            return []
        with self.refused_path.open("rb") as file:
            return [record for line in file if (record := parse_record(line))]

    def save_refused(self, records: list[Record]) -> None:
        """Remember the records that MLflow refuses; no file where there are none."""
        if records:
            write_atomic(self.refused_path, "".join(f"{each.to_json()}\n" for each in records))
        else:
            self.refused_path.unlink(missing_ok=True)

    def cut(self, length: int) -> None:
        """Go back to a checkpoint: what was recorded after it will be recorded again."""
        sent = min(self.sent, length)
        with self._writing, suppress(FileNotFoundError):
            os.truncate(self.path, min(length, self.size))
        self.save_sent(sent)
        self.save_refused([each for each in self.refused() if each.kind != "end"])

    def copy(self, source: "Journal", length: int) -> None:
        """Begin with the records of another journal up to a position, and the files they need.

        What MLflow has of the same run is not sent again; a new run gets all of it.
        """
        self.cut(0)
        is_same = source.run_id == self.run_id
        sent, sent_here = source.sent if is_same else 0, 0
        for record, end in source.read(0, length):
            if record is None:
                continue
            if end <= sent:
                self.append(replace(record, files=""))
                sent_here = self.size
            elif (moved := self._moved(record, source)) is not None:
                self.append(moved)
        self.save_sent(sent_here)
        if is_same:  # what came after the checkpoint is recorded again, here
            with suppress(OSError):
                source.save_sent(source.size)

    def _moved(self, record: Record, source: "Journal") -> Record | None:
        """A record of another journal with its files kept in this one; None where they are gone."""
        if record.kind not in PATH_KINDS:
            value = source.kept.value(record)
            return replace(record, value=value, files="") if source.kept.has(record) else None
        path = source.kept.path(record, record.value["path"]).resolve()
        if not path.exists():
            return None
        moved = record.value | {"path": str(path)}
        return replace(record, value=moved, files=self.kept.keep(path))


def open_journal(
    folder: Path, run_id: str, *, shared: bool = False, past: Past | None = None
) -> Journal:
    """Open the journal of a run and take its lock.

    Args:
        folder: Where it is, or is made.
        run_id: Of the run.
        shared: Several processes may write to the run at once: each has a journal of its own.
        past: Where a resumed training goes on; what it recorded later is cut off.

    Raises:
        UserError: Another process has it.
    """
    journal = Journal(journal_path(folder, run_id))
    number = 1
    while not journal.acquire(0 if shared else IN_USE_SECONDS):
        if not shared:
            raise UserError(_in_use(journal))
        number += 1
        journal = Journal(journal_path(folder, f"{run_id}.{number}"))
    journal.path.touch()  # a journal that is not there tells others that its process has ended
    if past is not None:
        _go_back(journal, past)
    unsent = [record for record, _ in journal.read(journal.sent) if record]
    journal.kept.forget_others({record.files for record in [*unsent, *journal.refused()]})
    return journal


def _go_back(journal: Journal, past: Past) -> None:
    source = Journal(journal_path(past.folder, past.run_id))
    if source.path.resolve() == journal.path.resolve():
        journal.cut(past.length)
    elif source.path.is_file():
        if not source.acquire(IN_USE_SECONDS):
            journal.release()
            raise UserError(_in_use(source))
        journal.copy(source, past.length)
        source.release()


def journal_path(folder: Path, name: str) -> Path:
    """Return the path of the journal of a run."""
    return folder / f"{PREFIX}{name}{SUFFIX}"


def _in_use(journal: Journal) -> str:
    return (
        f"the records in {journal.path} are being delivered by another process; "
        "go on when it is done"
    )


def _in_child() -> None:
    """Let a forked child append; its parent sends."""
    for journal in _alive:
        journal._writing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
