"""The journal of a run: everything that it records, appended to a file before it is sent to MLflow.

`<folder>/journal-<run id>.jsonl` holds one record per line. Next to it are the offset up to which
MLflow has the records, the files of unsent records, and a lock that the kernel frees when its
process ends. The process that holds the lock sends the records after the offset: the run itself, a
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
FINISHED_FILE = "finished.json"  # written at the end of a training; see `runs.train`
LARGE = 1 << 16  # the value of a record with more bytes is kept in a file of its own
IN_USE_SECONDS = 30.0  # how long a resumed run waits for a `sync` of its records
PATH_KINDS = ("file", "model")  # kinds whose value holds a path, under `path`

_alive: "weakref.WeakSet[Journal]" = weakref.WeakSet()


@dataclass(frozen=True)
class Past:
    """The point in an earlier journal at which a resumed training continues.

    Attributes:
        folder: Folder with the journal that the checkpoint's training wrote.
        run_id: Run of that training.
        length: Length of the journal in bytes when the checkpoint was saved.
    """

    folder: Path
    run_id: str
    length: int


class Journal:
    """The files of one run's journal; several threads may append."""

    def __init__(self, path: Path) -> None:
        """Set the paths; no file is opened yet."""
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
        self._unwritten: list[bytes] = []  # lines that a full disk did not take
        self._large: dict[tuple[str, str], str] = {}  # kind and name -> file of the newest value
        self._writing = threading.Lock()
        _alive.add(self)

    def acquire(self, seconds: float = 0) -> bool:
        """Try to take the lock for some seconds; return whether this process holds it."""
        if not self._lock.is_locked:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                self._lock.acquire(timeout=seconds)
        return self._lock.is_locked

    def release(self) -> None:
        """Close the file and free the lock; the files stay."""
        with self._writing:
            if self._file is not None:
                os.close(self._file)
                self._file = None
        self._lock.release()

    def remove(self) -> None:
        """Remove a journal that was delivered completely, and free the lock."""
        for path in (self.path, self._offset_path, self._lock_path):
            path.unlink(missing_ok=True)
        self.release()

    def append(self, record: Record) -> None:
        """Write a record to the file, so that it outlives this process.

        A record that the disk does not take stays in memory and is written before the next one.

        Raises:
            OSError: The disk does not take the record.
        """
        line = record.to_json().encode() + b"\n"
        if len(line) > LARGE and record.kind not in PATH_KINDS:
            with suppress(OSError):  # on a full disk the value stays in the record, in memory
                stored = replace(record, value=None, files=self.kept.keep_value(record.value))
                line = stored.to_json().encode() + b"\n"
                # An older value of this name that was not sent yet need not be sent any more.
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
        """End a line that a kill has cut off, so that the next record gets its own line."""
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")

    def num_unwritten(self) -> int:
        """Try to write the records in memory; return how many the disk does not take."""
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
        """Flush the journal to disk and return its length in bytes, with unwritten records."""
        with self._writing:
            if self._file is not None:
                os.fsync(self._file)
            return self.size + sum(map(len, self._unwritten))

    def read(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[Record | None, int]]:
        """Yield the records between two positions, each with the position of its end.

        A line that a kill has cut off yields None; a line that is being written ends the reading.
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
        """Return the curriculum events up to a position."""
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
        """Save the position up to which MLflow has the records."""
        staged = self._offset_path.with_suffix(".new")
        staged.write_text(str(position))
        os.replace(staged, self._offset_path)

    @property
    def is_delivered(self) -> bool:
        """Whether MLflow has everything."""
        return self.sent >= self.size and not self.refused_path.exists()

    @property
    def is_ended(self) -> bool:
        """Whether the newest record is the end of the run."""
        last = None
        for record, _ in self.read():
            last = record or last
        return last is not None and last.kind == "end"

    @property
    def is_finished(self) -> bool:
        """Whether the journal's training has finished, however its process ended."""
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
        """Save the records that MLflow refuses; remove the file if there are none."""
        if records:
            write_atomic(self.refused_path, "".join(f"{each.to_json()}\n" for each in records))
        else:
            self.refused_path.unlink(missing_ok=True)

    def cut(self, length: int) -> None:
        """Cut the journal to its length at a checkpoint; the rest will be recorded again."""
        sent = min(self.sent, length)
        with self._writing, suppress(FileNotFoundError):
            os.truncate(self.path, min(length, self.size))
        self.save_sent(sent)
        self.save_refused([each for each in self.refused() if each.kind != "end"])

    def copy(self, source: "Journal", length: int) -> None:
        """Copy the records of another journal up to a position, with their files.

        Records that MLflow has already are not sent again to the same run, but to a new one.
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
        if is_same:  # records after the checkpoint are recorded again in this journal
            with suppress(OSError):
                source.save_sent(source.size)

    def _moved(self, record: Record, source: "Journal") -> Record | None:
        """Return a record of another journal with its files copied here; None if they are gone."""
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
        folder: Folder of the journal.
        run_id: Id of the run.
        shared: Whether several processes write to the run; each gets a journal of its own.
        past: Point where a resumed training continues; later records are cut off.

    Raises:
        UserError: Another process holds the lock.
    """
    journal = Journal(journal_path(folder, run_id))
    number = 1
    while not journal.acquire(0 if shared else IN_USE_SECONDS):
        if not shared:
            raise UserError(_in_use(journal))
        number += 1
        journal = Journal(journal_path(folder, f"{run_id}.{number}"))
    journal.path.touch()  # a missing journal would mean that its process has ended (`is_dead`)
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
    """Give a forked child a lock that nobody holds, so that it can append records."""
    for journal in _alive:
        journal._writing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
