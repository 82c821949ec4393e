"""What waits for MLflow, on disk: a record a line, and the files that records are about.

Whoever delivers a run's records holds the lock beside them: the training, or `sync` after it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pixelis.files import write_atomic
from pixelis.tracking.delivery import Record
from pixelis.tracking.source import copy_public

PREFIX = "pixelis-undelivered-"
SUFFIX = ".jsonl"
REFUSED = "pixelis-refused-"
ROOMY = 64 << 20  # bytes that the file may have whatever of it still waits
IN_USE_SECONDS = 5.0  # that a write waits for another process to let go


class Spool:
    """The undelivered records of one run in a folder.

    Args:
        folder: Where; made when there is something to write.
        run_id: Whose.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        """Touch nothing yet."""
        self.path = folder / f"{PREFIX}{run_id}{SUFFIX}"
        self.refused = folder / f"{REFUSED}{run_id}{SUFFIX}"
        self._files = folder / f".{PREFIX}{run_id}.files"
        self._lock_file = folder / f".{PREFIX}{run_id}.lock"
        # Acquired in one thread, released in another.
        self._lock = FileLock(self._lock_file, thread_local=False)
        self._roomy = ROOMY

    @property
    def held(self) -> bool:
        """Whether this process has the lock: from the first record on disk until the last."""
        return self._lock.is_locked

    def acquire(self, seconds: float = 0) -> bool:
        """Take the lock, waiting for it this long; whether it is ours."""
        if self.held:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=seconds)
        except Timeout:
            return False
        return True

    def load(self) -> list[Record]:
        """The records on disk, oldest first, without those whose files say that they arrived.

        A line that a kill has torn is skipped; files that no record is about are removed.
        """
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = self._parse(line)
            except (ValueError, TypeError):
                continue
            # Files go when their record has arrived: then a kill kept its line from going too.
            if not record.files or Path(record.files).exists():
                found.append(record)
        wanted = {Path(record.files).name for record in found if record.files}
        if self._files.is_dir():
            for folder in self._files.iterdir():
                if folder.name not in wanted:
                    shutil.rmtree(folder, ignore_errors=True)
        return found

    def load_unended(self) -> list[Record]:
        """As `load`, for a run that goes on: how its earlier process ended is over, on disk too."""
        ends = {("status", "status"), ("tag", "pixelis.error")}
        found = self.load()
        left = [record for record in found if (record.kind, record.name) not in ends]
        if left != found:
            self.rewrite(left)
        return left

    def _parse(self, line: str) -> Record:
        """The record of a line; the folder may have moved since, and its files with it."""
        record = Record(**json.loads(line))
        here = str(self._files / Path(record.files).name)
        if not record.files or record.files == here:
            return record
        return Record(**json.loads(line.replace(_quoted(record.files), _quoted(here))))

    def append(self, records: Sequence[Record]) -> None:
        """Write records behind those that are there.

        Raises:
            OSError: The disk does not take them, or another process holds the lock.
        """
        if not self.acquire(IN_USE_SECONDS):
            raise OSError(f"{self.path} is in use by another process")
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # torn by a kill
                    file.write(b"\n")
            file.write(_lines(records))

    def rewrite(self, records: Sequence[Record]) -> None:
        """Let the file hold these records and no others."""
        if not self.acquire(IN_USE_SECONDS):
            raise OSError(f"{self.path} is in use by another process")
        write_atomic(self.path, _lines(records))
        self._roomy = max(ROOMY, 2 * self.path.stat().st_size)

    @property
    def overgrown(self) -> bool:
        """Whether much of the file may be delivered, or replaced by a newer record, by now."""
        return self.path.stat().st_size > self._roomy

    def refuse(self, records: Sequence[Record]) -> None:
        """Keep records that MLflow will never take where the user can read them."""
        self.refused.parent.mkdir(parents=True, exist_ok=True)
        with self.refused.open("ab") as file:
            file.write(_lines(records))

    def remove(self) -> None:
        """Everything has arrived: leave no file and let go of the lock."""
        if self.held:
            self.path.unlink(missing_ok=True)
            self.release()
        with suppress(OSError):  # none, or a record that is about to come has files in it
            self._files.rmdir()

    def release(self) -> None:
        """Let go of the lock; the records stay."""
        if self.held:
            self._lock_file.unlink(missing_ok=True)
            self._lock.release()

    def hold(self, path: Path) -> tuple[Path, str]:
        """Link a file or folder (copy it where links cannot be) so that it outlives the original.

        Checkpoints rotate and temporary folders vanish before a server is back. Texts are
        copied without what is nobody's business, see `source.public`.

        Returns:
            What to deliver, and what its record says as `files`: the folder that goes when it has
            arrived. The path itself and nothing, where the disk does not take it.
        """
        try:
            self._files.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._files))
        except OSError:
            return path, ""
        try:
            if path.is_dir():
                shutil.copytree(path, folder / path.name, copy_function=_link)
            else:
                _link(str(path), str(folder / path.name))
        except (OSError, shutil.Error):
            self.forget(str(folder))
            return path, ""
        return folder / path.name, str(folder)

    def forget(self, files: str) -> None:
        """Remove what `hold` made: its record has arrived."""
        shutil.rmtree(files, ignore_errors=True)


def _quoted(text: str) -> str:
    """A text as it is inside the JSON of a record."""
    return json.dumps(text)[1:-1]


def _lines(records: Sequence[Record]) -> bytes:
    return "".join(record.to_json() + "\n" for record in records).encode()


def _link(source: str, target: str) -> str:
    if copy_public(Path(source), Path(target)):
        return target
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
