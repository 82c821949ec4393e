"""The journal of a run: everything that it records, appended to a file before it is sent to MLflow.

`<folder>/journal-<run id>.jsonl` holds one record per line. Next to it are the offset up to which
MLflow has the records, the files of unsent records, and a lock that the kernel frees when its
process ends. The process that holds the lock sends the records after the offset: the run itself, a
resumed one or `sync`.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from pixelis.errors import UserError
from pixelis.files import explain_write_errors, write_atomic
from pixelis.tracking.privacy import copy_public

PREFIX, SUFFIX = "journal-", ".jsonl"
REFUSED = "refused-"
FINISHED_FILE = "finished.json"  # written at the end of a training; see `runs.train`
IN_USE_SECONDS = 30.0  # how long a resumed run waits for a `sync` of its records


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a run's journal, in plain JSON."""

    kind: str  # one of the kinds of `send.Sender`
    name: str  # the key of a metric, parameter or tag; otherwise a path in the run's artifacts
    # A number, a text or plain JSON; for files and adapters, with their original `path`.
    value: Any = None
    step: int = 0  # the optimiser step of a metric
    # Time of recording, not of sending, in milliseconds since 1970: MLflow drops a metric that
    # comes twice with the same timestamp, so sending it again is harmless.
    timestamp: int = 0
    # Name of the folder among the journal's files with the record's file or folder. It is removed
    # once MLflow has it, or a newer content of this name was recorded.
    files: str = ""

    def to_line(self) -> bytes:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), default=str).encode() + b"\n"


def parse_record(line: bytes) -> Record | None:
    """Return the record of a line; None for a line that is cut off or damaged."""
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError):
        return None


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Past:
    """The point in an earlier journal at which a resumed training continues."""

    folder: Path  # folder with the journal that the checkpoint's training wrote
    run_id: str  # run of that training
    length: int  # length of the journal in bytes when the checkpoint was saved


class Journal:
    """The files of one run's journal."""

    def __init__(self, path: Path) -> None:
        """Set the paths; no file is opened yet."""
        stem = path.name.removesuffix(SUFFIX)
        self.path = path
        self.run_id = stem.removeprefix(PREFIX).partition(".")[0]
        self.refused_path = path.with_name(REFUSED + path.name.removeprefix(PREFIX))
        self.files = path.with_name(f".{stem}.files")
        self._offset_path = path.with_name(f".{stem}.offset")
        self._lock_path = path.with_name(f".{stem}.lock")
        # Acquired in one thread, released in another.
        self._lock = FileLock(self._lock_path, thread_local=False)
        self._file: int | None = None
        # Records that the disk did not take yet, with the content of those that are files.
        self._unwritten: list[tuple[Record, bytes | None]] = []
        self._newest: dict[str, Record] = {}  # artifact path -> the newest unsent record with it

    def acquire(self, seconds: float = 0) -> bool:
        """Try to take the lock for some seconds; return whether this process holds it."""
        if not self._lock.is_locked:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                self._lock.acquire(timeout=seconds)
        return self._lock.is_locked

    def release(self) -> None:
        """Close the file and free the lock; the files stay."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()

    def close(self, *, is_delivered: bool, keep: bool = True) -> None:
        """Release the journal; remove the files of a delivered one, all of them unless `keep`."""
        if is_delivered:
            shutil.rmtree(self.files, ignore_errors=True)
        if is_delivered and not keep:
            for path in (self.path, self._offset_path, self._lock_path):
                path.unlink(missing_ok=True)
        self.release()

    def append(self, record: Record, content: bytes | None = None) -> None:
        """Write a record to the file, so that it outlives this process.

        `content` is that of the artifact with the record's name; it replaces an older one.

        Raises:
            OSError: The disk does not take the record, which stays in memory for a next try.
        """
        self._unwritten.append((record, content))
        self.write()

    def write(self) -> None:
        """Write the records in memory, if any."""
        if not self._unwritten:
            return
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            # A line that a kill has cut off is ended, so that the next record gets its own line.
            if self.size and os.pread(self._file, 1, self.size - 1) != b"\n":
                os.write(self._file, b"\n")
        waiting, self._unwritten = self._unwritten, []
        failure, is_blocked = None, False
        for record, content in waiting:
            if not is_blocked:
                try:
                    self._write_record(record, content)
                    continue
                except OSError as error:
                    # Lines stay in order, while a large content does not hold up what still fits.
                    failure, is_blocked = error, content is None
            self._unwritten.append((record, content))
        if failure is not None:
            raise failure

    def _write_record(self, record: Record, content: bytes | None) -> None:
        assert self._file is not None
        if content is not None:
            record = self._keep_content(record, content)
        line, before = record.to_line(), self.size
        try:
            with explain_write_errors(self.path, len(line)):
                if os.write(self._file, line) < len(line):  # the disk is full now
                    os.ftruncate(self._file, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            if content is not None:
                self.forget(record)  # it is kept again with the next try
            raise

    def take_lines(self) -> list[Record]:
        """Return the records in memory that have no content, and forget them."""
        lines = [record for record, content in self._unwritten if content is None]
        self._unwritten = [each for each in self._unwritten if each[1] is not None]
        return lines

    @property
    def num_unwritten(self) -> int:
        """The number of records that the disk did not take."""
        return len(self._unwritten)

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        with suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def position(self) -> int:
        """Flush the journal to disk and return its length in bytes."""
        if self._file is not None:
            os.fsync(self._file)
        return self.size

    def _keep_content(self, record: Record, content: bytes) -> Record:
        target = self.files / uuid.uuid4().hex
        try:
            with explain_write_errors(target, len(content)):
                target.mkdir(parents=True)
                (target / PurePosixPath(record.name).name).write_bytes(content)
        except OSError:
            shutil.rmtree(target, ignore_errors=True)
            raise
        if record.name in self._newest:
            self.forget(self._newest[record.name])
        self._newest[record.name] = replace(record, files=target.name)
        return self._newest[record.name]

    def keep(self, path: Path) -> str:
        """Keep a file or a folder, which may be deleted before MLflow has it.

        Files are hard-linked where the file system can do it; texts are copied without secrets.

        Returns:
            The name for `Record.files`; empty if the file is missing or the disk is full.
        """
        target = self.files / uuid.uuid4().hex
        try:
            target.mkdir(parents=True)
            if path.is_dir():
                shutil.copytree(path, target / path.name, copy_function=_link)
            else:
                _link(str(path), str(target / path.name))
        except (OSError, shutil.Error):
            shutil.rmtree(target, ignore_errors=True)
            return ""
        return target.name

    def find_file(self, record: Record) -> Path | None:
        """Return the file or folder of a record; None if it was sent, replaced or removed."""
        if record.files:
            for path in (self.files / record.files).glob("*"):
                return path
        original = Path(record.value["path"]) if record.value else None
        return original if original and original.exists() else None

    def forget(self, record: Record) -> None:
        """Remove the file of a record, which MLflow has."""
        if record.files:
            shutil.rmtree(self.files / record.files, ignore_errors=True)

    def read(self, begin: int = 0) -> Iterator[tuple[Record | None, int]]:
        """Yield the records after a position, each with the position of its end.

        A line that a kill has cut off yields None; a line that is being written ends the reading.
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(begin)
            for line in file:
                begin += len(line)
                if not line.endswith(b"\n"):
                    return
                yield parse_record(line), begin

    def events(self, end: float = float("inf")) -> list[dict[str, Any]]:
        """Return the curriculum events up to a position."""
        records = (record for record, _ in takewhile(lambda each: each[1] <= end, self.read()))
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
    def end(self) -> Record | None:
        """The end of the run; None if a process has recorded more since.

        A file that a full disk took only after the end was recorded before it.
        """
        end = None
        for record, _ in self.read():
            if record and record.kind == "end":
                end = record
            elif record and end and record.timestamp > end.timestamp:
                end = None
        return end

    @property
    def is_finished(self) -> bool:
        """Whether the journal's training has finished, however its process ended."""
        try:
            finished = json.loads((self.path.parent / FINISHED_FILE).read_text(encoding="utf-8"))
            return bool(finished["run_id"] == self.run_id)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def unsent(self) -> list[Record]:
        """Return the records that MLflow does not have, without those that it refused."""
        return [record for record, _ in self.read(self.sent) if record]

    def refused(self) -> list[Record]:
        """Return the records that MLflow has refused so far."""
        if not self.refused_path.is_file():
            return []
        lines = self.refused_path.read_bytes().splitlines(keepends=True)
        return [record for line in lines if (record := parse_record(line))]

    def save_refused(self, records: list[Record]) -> None:
        """Save the records that MLflow refuses; remove the file if there are none."""
        if records:
            write_atomic(self.refused_path, b"".join(record.to_line() for record in records))
        else:
            self.refused_path.unlink(missing_ok=True)

    def go_back(self, past: Past) -> None:
        """Cut the journal to its length at a checkpoint, or copy so much of another one to it.

        Records after the checkpoint will be recorded again.
        """
        source = Journal(journal_path(past.folder, past.run_id))
        if source.path.resolve() == self.path.resolve():
            sent = min(self.sent, past.length)
            os.truncate(self.path, min(past.length, self.size))
            self.save_sent(sent)
        elif source.path.is_file():
            acquire_or_fail(source)
            with source.path.open("rb") as file:
                self.path.write_bytes(file.read(past.length))
            if source.files.is_dir():
                shutil.copytree(source.files, self.files, copy_function=_link, dirs_exist_ok=True)
            # A new run needs all records, the same one only those that were not sent.
            self.save_sent(min(source.sent, past.length) if source.run_id == self.run_id else 0)
            if source.run_id == self.run_id:
                with suppress(OSError):
                    source.save_sent(source.size)  # it goes on in this journal
            source.release()


def open_journal(
    folder: Path, run_id: str, *, shared: bool = False, past: Past | None = None
) -> Journal:
    """Open the journal of a run and take its lock.

    If several processes write to the run (`shared`), each gets a journal of its own.

    Raises:
        UserError: Another process holds the lock.
    """
    journal, number = Journal(journal_path(folder, run_id)), 1
    while shared and not journal.acquire():
        number += 1
        journal = Journal(journal_path(folder, f"{run_id}.{number}"))
    acquire_or_fail(journal)
    journal.path.touch()  # a missing one would mean that its process has ended (`sync.is_dead`)
    if past is not None:
        try:
            journal.go_back(past)
        except UserError:
            journal.release()
            raise
    contents = [record for record in (*journal.refused(), *journal.unsent()) if record.files]
    journal._newest = {record.name: record for record in contents if record.value is None}
    return journal


def journal_path(folder: Path, name: str) -> Path:
    """Return the path of the journal of a run."""
    return folder / f"{PREFIX}{name}{SUFFIX}"


def acquire_or_fail(journal: Journal) -> None:
    """Take a journal's lock; raise UserError if another process holds it for long."""
    if not journal.acquire(IN_USE_SECONDS):
        raise UserError(
            f"the records in {journal.path} are being delivered by another process; "
            "go on when it is done"
        )


def _link(source: str, target: str) -> str:
    if copy_public(Path(source), Path(target)):
        return target
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
