"""Finished rollouts on disk, so that a stopped evaluation goes on where it was.

One JSON line a rollout, written at once when it ends. A line that a kill cut off is dropped. Images
are not written: operations are functions of the pixels, so they are run again on the way back.
"""

import json
import shutil
import sys
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

Key = tuple[str, str, int, bool]


class KeptRollouts:
    """The finished rollouts of one evaluation, in a folder that only one process writes to."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        """Name the folder; it is made, locked and read when this is entered.

        Args:
            folder: of this evaluation alone; its name should follow from the identity.
            identity: all that rollouts depend on, JSON; written beside them for people to read.
            resume: take up what is there; otherwise it is removed.
        """
        self.folder = folder
        self.identity = dict(identity)
        self.resume = resume
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)
        self._lines: dict[Key, dict[str, Any]] = {}
        self._file: TextIO | None = None
        self._full = False  # the disk

    def __enter__(self) -> "KeptRollouts":
        """Make, lock and read the folder.

        Raises:
            DataError: when another process has it, or it cannot be written.
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
        self._lines, whole = _read(path)
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._file.truncate(whole)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close and unlock it; what it holds stays. With the folder its lock goes, too."""
        if not self._lines:
            self.discard()
        if self._file is not None:
            with suppress(OSError):  # what a full disk has not taken
                self._file.close()
            self._file = None
        if not self.folder.exists():
            # While it is held: whoever waits at the removed file sees that, and takes a new one.
            with suppress(OSError):  # systems that do not remove an open file
                Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def __len__(self) -> int:
        """Rollouts kept."""
        return len(self._lines)

    def take(self, model: str, conversations: Sequence[Conversation]) -> dict[int, Rollout]:
        """The kept rollouts of these conversations, by place; images are made again.

        What no longer fits the operations, because these were changed, is left out.
        """
        found = {}
        for place, conversation in enumerate(conversations):
            line = self._lines.get(_key_of(model, conversation))
            rollout = None if line is None else _rollout(line, conversation.example)
            if rollout is not None:
                found[place] = rollout
        return found

    def add(self, model: str, rollout: Rollout) -> None:
        """Write a rollout of a model (`adapter`, `base`, ...) down."""
        assert self._file is not None, "kept rollouts are written only between enter and exit"
        line = {"model": model, **_as_json(rollout)}
        self._lines[_key(line)] = line
        if self._full:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
            # To the system, which outlives the process.
            self._file.flush()
        except OSError as error:
            self._full = True
            why = describe_write_error(error, self.folder / ROLLOUTS_FILE).strerror
            print(
                f"pixelis: warning: finished rollouts are no longer kept in {self.folder} ({why}); "
                "the evaluation goes on",
                file=sys.stderr,
                flush=True,
            )

    def discard(self) -> None:
        """Remove what is kept: the evaluation is complete and recorded."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> tuple[dict[Key, dict[str, Any]], int]:
    """The whole lines of a file, up to the first that is none, and where that begins, in bytes."""
    lines: dict[Key, dict[str, Any]] = {}
    whole = 0
    if not path.is_file():
        return lines, whole
    with path.open("rb") as file:
        for raw in file:
            try:
                if not raw.endswith(b"\n"):
                    break
                line = json.loads(raw)
                lines[_key(line)] = line
            except (ValueError, TypeError, KeyError):
                break
            whole += len(raw)
    return lines, whole


def _key(line: Mapping[str, Any]) -> Key:
    return str(line["model"]), str(line["example_id"]), int(line["sample"]), bool(line["planted"])


def _key_of(model: str, conversation: Conversation) -> Key:
    return model, conversation.example.id, conversation.sample, conversation.planted


def _as_json(rollout: Rollout) -> dict[str, Any]:
    told = {f.name: getattr(rollout, f.name) for f in fields(Rollout) if f.name != "turns"}
    turns = [
        {f.name: getattr(turn, f.name) for f in fields(Turn) if f.name != "image"}
        for turn in rollout.turns
    ]
    return {**told, "turns": turns}


def _rollout(line: Mapping[str, Any], example: Example) -> Rollout | None:
    told = {name: value for name, value in line.items() if name not in ("model", "turns")}
    try:
        turns = [_turn(turn, example) for turn in line["turns"]]
        if not turns or None in turns:
            return None
        return Rollout(**told, turns=tuple(turn for turn in turns if turn is not None))
    except TypeError:  # of another version: other fields
        return None


def _turn(told: Mapping[str, Any], example: Example) -> Turn | None:
    turn = Turn(**told, image=None)
    if turn.kind != CALL or turn.result is None or "error" in turn.result:
        return turn
    observation = execute(turn.operation, turn.arguments, example.images)
    if json.loads(json.dumps(observation.result)) != turn.result:
        return None
    return Turn(**told, image=observation.image)
