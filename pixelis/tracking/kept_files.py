"""Copies of the files that a journal's records refer to, kept until MLflow has them.

Checkpoints and temporary folders may be deleted before a server answers again. Files are
hard-linked where the file system can do it; texts are copied without secrets.
"""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixelis.files import write_atomic
from pixelis.tracking.privacy import copy_public
from pixelis.tracking.record import Record

VALUE_FILE = "value.json"


class KeptFiles:
    """The folder with the kept files of one journal.

    Args:
        folder: Path of the folder; it is created for the first file.
    """

    def __init__(self, folder: Path) -> None:
        """Set the folder."""
        self.folder = folder

    def keep(self, path: Path) -> str:
        """Keep a file or a folder.

        Returns:
            The name for `Record.files`; empty if the file is missing or the disk is full.
        """
        try:
            target = self._make()
        except OSError:
            return ""
        try:
            if path.is_dir():
                shutil.copytree(path, target / path.name, copy_function=_link)
            else:
                _link(str(path), str(target / path.name))
        except (OSError, shutil.Error):
            self.forget(target.name)
            return ""
        return target.name

    def keep_value(self, value: Any) -> str:
        """Keep a large value of a record as a file of its own, so that the journal stays small.

        Raises:
            OSError: The disk does not take it.
        """
        target = self._make()
        write_atomic(target / VALUE_FILE, json.dumps(value, default=str))
        return target.name

    def _make(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.folder))

    def has(self, record: Record) -> bool:
        """Return whether a record's files exist; they are removed once MLflow has them."""
        return not record.files or (self.folder / record.files).exists()

    def value(self, record: Record) -> Any:
        """Return a record's value; a large one is read from its file."""
        path = self.folder / record.files / VALUE_FILE
        if record.files and path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        return record.value

    def path(self, record: Record, original: str) -> Path:
        """Return the current path of the file or folder of a record.

        Args:
            record: A record of the journal.
            original: Original path, absolute or relative to the journal's folder.
        """
        kept = self.folder / record.files / Path(original).name
        return kept if record.files and kept.exists() else self.folder.parent / original

    def forget(self, files: str) -> None:
        """Remove the files of a record."""
        if files:
            shutil.rmtree(self.folder / files, ignore_errors=True)
            with suppress(OSError):  # the folder holds other files, or does not exist
                self.folder.rmdir()

    def forget_others(self, wanted: set[str]) -> None:
        """Remove all other files: a kill may have come between keeping a file and its record."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in wanted:
                self.forget(path.name)


def _link(source: str, target: str) -> str:
    if copy_public(Path(source), Path(target)):
        return target
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
