"""The finished rollouts of an evaluation on disk, from which a stopped one is resumed.

One line of JSON per rollout, written when it ends. Images are not stored: operations are
deterministic, so that running a call again gives its image.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from pixelis.data.example import Example
from pixelis.errors import DataError
from pixelis.evaluation.rollout import Conversation
from pixelis.evaluation.turns import CALL, Rollout, Turn
from pixelis.files import describe_write_error, write_atomic
from pixelis.operations import execute

ROLLOUTS_FILE = "rollouts.jsonl"
IDENTITY_FILE = "identity.json"

logger = logging.getLogger(__name__)

Key = tuple[str, str, int, bool]


class RolloutStore:
    """The finished rollouts of one evaluation (`open_store`)."""

    def __init__(self, folder: Path, lines: dict[Key, dict[str, Any]], file: TextIO) -> None:
        """Set the stored lines, and the file to which further ones are appended."""
        self.folder = folder
        self.is_complete = False  # set when the evaluation is recorded: the folder is removed
        self._lines = lines
        self._file = file
        self._disk_full = False

    def __len__(self) -> int:
        """Return the number of stored rollouts."""
        return len(self._lines)

    def load(self, model: str, conversations: Sequence[Conversation]) -> dict[int, Rollout]:
        """Return the stored rollouts of a model by index of their conversation, with images."""
        keys = [(model, c.example.id, c.sample, c.planted) for c in conversations]
        return {
            index: _rollout(self._lines[key], conversations[index].example)
            for index, key in enumerate(keys)
            if key in self._lines
        }

    def add(self, model: str, rollout: Rollout) -> None:
        """Write a rollout of a model (`adapter`, `base`, ...)."""
        line = {"model": model, **_as_json(rollout)}
        self._lines[_key(line)] = line
        if self._disk_full:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
            # The system keeps the line if this process is killed.
            self._file.flush()
        except OSError as error:
            self._disk_full = True
            logger.warning(
                "finished rollouts are no longer kept in %s (%s); the evaluation goes on",
                self.folder,
                describe_write_error(error, self.folder / ROLLOUTS_FILE).strerror,
            )


@contextmanager
def open_store(
    folder: Path, identity: Mapping[str, Any], *, resume: bool = True
) -> Iterator[RolloutStore]:
    """Create, lock and read the store of one evaluation; an empty or complete one is removed.

    Args:
        folder: folder for this evaluation only; its name should depend on the identity.
        identity: all values that change rollouts, as JSON; written to the folder for users.
        resume: whether to use the rollouts in the folder; otherwise they are removed.

    Raises:
        DataError: when another process uses it, or it cannot be written.
    """
    lock = FileLock(folder / "lock", timeout=0)
    path = folder / ROLLOUTS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        text = json.dumps(dict(identity), indent=2, sort_keys=True)
        write_atomic(folder / IDENTITY_FILE, text + "\n")
        if not resume:
            path.unlink(missing_ok=True)
        lines, num_bytes = _read_lines(path)
        file = path.open("a", encoding="utf-8", newline="\n")
        file.truncate(num_bytes)
    except Timeout as error:
        raise DataError(
            f"{folder} is in use: another process makes the same evaluation; "
            "wait for it, or name another output_dir"
        ) from error
    except OSError as error:
        raise DataError(f"output_dir {folder} cannot be written: {error}") from error
    store = RolloutStore(folder, lines, file)
    if len(store):
        logger.info(
            "%d finished rollouts of this evaluation, which was stopped, are taken up from %s",
            len(store),
            folder,
        )
    try:
        yield store
    except (KeyboardInterrupt, SystemExit):
        message = "stopped: %d finished rollouts are kept in %s; the same command goes on there"
        logger.warning(message, len(store), folder)
        raise
    finally:
        with suppress(OSError):  # a full disk does not take the buffered line
            file.close()
        if store.is_complete or not len(store):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _read_lines(path: Path) -> tuple[dict[Key, dict[str, Any]], int]:
    """Return the lines of a file up to the first broken one, and their length in bytes."""
    lines: dict[Key, dict[str, Any]] = {}
    num_bytes = 0
    for raw in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            line = json.loads(raw)
            key = _key(line)
        except (ValueError, TypeError, KeyError):
            break
        if not raw.endswith(b"\n"):
            break
        lines[key] = line
        num_bytes += len(raw)
    return lines, num_bytes


def _key(line: Mapping[str, Any]) -> Key:
    return str(line["model"]), str(line["example_id"]), int(line["sample"]), bool(line["planted"])


def _as_json(rollout: Rollout) -> dict[str, Any]:
    values = {f.name: getattr(rollout, f.name) for f in fields(Rollout) if f.name != "turns"}
    turns = [
        {f.name: getattr(turn, f.name) for f in fields(Turn) if f.name != "image"}
        for turn in rollout.turns
    ]
    return {**values, "turns": turns}


def _rollout(line: Mapping[str, Any], example: Example) -> Rollout:
    values = {name: value for name, value in line.items() if name not in ("model", "turns")}
    rollout = Rollout(**values, turns=tuple(Turn(**turn, image=None) for turn in line["turns"]))
    turns = [
        replace(turn, image=execute(turn.operation, turn.arguments, example.images).image)
        if turn.kind == CALL and turn.result is not None and "error" not in turn.result
        else turn
        for turn in rollout.turns
    ]
    return replace(rollout, turns=tuple(turns))
