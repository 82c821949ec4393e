"""Finished rollouts on disk, with which a stopped evaluation is resumed.

Each rollout is one line of JSON, written as soon as it ends; a line that a kill cut off is dropped.
Images are not stored: loading runs the operations again, which depend only on the pixels.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from filelock import FileLock, Timeout

from pixelis.data.example import Example
from pixelis.errors import DataError
from pixelis.evaluation.conversation import Conversation
from pixelis.evaluation.turns import CALL, Rollout, Turn
from pixelis.files import describe_write_error, write_atomic
from pixelis.operations import execute

ROLLOUTS_FILE = "rollouts.jsonl"
IDENTITY_FILE = "identity.json"

logger = logging.getLogger(__name__)

Key = tuple[str, str, int, bool]


class RolloutStore:
    """The finished rollouts of one evaluation, in a folder that only one process writes to."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        """Set the folder; entering the store creates, locks and reads it.

        Args:
            folder: folder for this evaluation only; its name should depend on the identity.
            identity: all values that change rollouts, as JSON; written to the folder for users.
            resume: whether to use the rollouts in the folder; otherwise they are removed.
        """
        self.folder = folder
        self.identity = dict(identity)
        self.resume = resume
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)
        self._lines: dict[Key, dict[str, Any]] = {}
        self._file: TextIO | None = None
        self._disk_full = False

    def __enter__(self) -> "RolloutStore":
        """Create, lock and read the folder.

        Raises:
            DataError: when another process uses it, or it cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise DataError(
                f"{self.folder} is in use: another process makes the same evaluation; "
                "wait for it, or name another output_dir"
            ) from error
        except OSError as error:
            raise DataError(f"output_dir {self.folder} cannot be written: {error}") from error
        if not self.resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        text = json.dumps(self.identity, indent=2, sort_keys=True)
        write_atomic(self.folder / IDENTITY_FILE, text + "\n")
        path = self.folder / ROLLOUTS_FILE
        self._lines, num_bytes = _read_lines(path)
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._file.truncate(num_bytes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close and unlock the folder; the lock file is removed together with the folder."""
        self._close()
        if not self._lines:
            self.discard()
        if not self.folder.exists():
            # Remove it while it is locked: a process that waits for the lock creates a new file.
            with suppress(OSError):  # some systems do not remove an open file
                Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def __len__(self) -> int:
        """Return the number of stored rollouts."""
        return len(self._lines)

    def load(self, model: str, conversations: Sequence[Conversation]) -> dict[int, Rollout]:
        """Return the stored rollouts of a model by index of their conversation, with images.

        Rollouts whose stored results differ from those of the present operations are left out.
        """
        rollouts = {}
        for index, conversation in enumerate(conversations):
            example = conversation.example
            key = model, example.id, conversation.sample, conversation.planted
            if key in self._lines and (rollout := _rollout(self._lines[key], example)) is not None:
                rollouts[index] = rollout
        return rollouts

    def add(self, model: str, rollout: Rollout) -> None:
        """Write a rollout of a model (`adapter`, `base`, ...)."""
        assert self._file is not None, "rollouts are written only between enter and exit"
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

    def discard(self) -> None:
        """Remove the folder: the evaluation is complete and recorded."""
        self._close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk does not take the buffered line
                self._file.close()
            self._file = None


def _read_lines(path: Path) -> tuple[dict[Key, dict[str, Any]], int]:
    """Return the lines of a file up to the first broken one, and their length in bytes."""
    lines: dict[Key, dict[str, Any]] = {}
    num_bytes = 0
    if not path.is_file():
        return lines, num_bytes
    with path.open("rb") as file:
        for raw in file:
            try:
                if not raw.endswith(b"\n"):
                    break
                line = json.loads(raw)
                lines[_key(line)] = line
            except (ValueError, TypeError, KeyError):
                break
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


def _rollout(line: Mapping[str, Any], example: Example) -> Rollout | None:
    values = {name: value for name, value in line.items() if name not in ("model", "turns")}
    try:
        turns = [_turn(turn, example) for turn in line["turns"]]
        if not turns or None in turns:
            return None
        return Rollout(**values, turns=tuple(turn for turn in turns if turn is not None))
    except TypeError:  # another version wrote it, with other fields
        return None


def _turn(values: Mapping[str, Any], example: Example) -> Turn | None:
    turn = Turn(**values, image=None)
    if turn.kind != CALL or turn.result is None or "error" in turn.result:
        return turn
    observation = execute(turn.operation, turn.arguments, example.images)
    if json.loads(json.dumps(observation.result)) != turn.result:
        return None
    return Turn(**values, image=observation.image)
