"""Checkpoints: seal and check them, and decide where a training begins.

The Trainer writes and reads its own files (optimiser, scheduler, random generators, state). We add
the adapter, the curriculum's state and `complete.json`, which is written last and holds the SHA-256
of every other file.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pixelis.errors import CheckpointError, UserError, in_one_line
from pixelis.files import (
    explain_write_errors,
    file_sha256,
    fsync_folder,
    is_disk_full,
    recover_folder,
    replace_folder,
    write_atomic,
)

logger = logging.getLogger(__name__)

AUTO = "auto"
COMPLETE_FILE = "complete.json"
CURRICULUM_FILE = "curriculum_state.json"
ADAPTER_FILE = "adapter_model.safetensors"
EVENTS_FILE = "events.json"
FINISHED_FILE = "finished.json"
BEST, FINAL = "best", "final"  # folders below output_dir
# Adapter and two moments; twice, because the checkpoint before stays until this one is complete.
NUM_COPIES = 6
_NAME = re.compile(r"checkpoint-(\d+)")
# What a folder may hold without being a training's: the records of an earlier run that its tracker
# has not received (`sync` looks for them here), and what a kill left of the first file.
_NO_TRAINING = ("journal-", "refused-", "events.json.")


@contextmanager
def convert_errors(path: Path) -> Iterator[None]:
    """Convert errors while reading a checkpoint into CheckpointError.

    The digests show that a checkpoint has not changed since it was written, but not that this
    version wrote it.

    Raises:
        CheckpointError: naming the path and what is wrong in it.
    """
    try:
        yield
    except (CheckpointError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise CheckpointError(
            f"checkpoint {path} cannot be taken up: {kind}{in_one_line(error)}"
        ) from error


def write_json(value: Any, path: Path) -> None:
    """Write JSON completely or not at all (`write_atomic`)."""
    write_atomic(path, json.dumps(value, indent=2))


def read_json(path: Path) -> Any:
    """Read JSON of a checkpoint.

    Raises:
        CheckpointError: when it is missing or no JSON, naming the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete: write the digests of its files once these are on disk."""
    fsync_folder(folder)
    write_json(_digests(folder), folder / COMPLETE_FILE)


def find_fault(folder: Path) -> str | None:
    """Return why a checkpoint is not complete, or None if it is."""
    try:
        sealed = dict(read_json(folder / COMPLETE_FILE))
        current = _digests(folder)
    except (OSError, ValueError, TypeError) as error:
        return f"{COMPLETE_FILE} cannot be read ({error})"
    changed = sorted(n for n in {*sealed, *current} if sealed.get(n) != current.get(n))
    return f"{', '.join(changed)} differ from what was saved" if changed else None


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: file_sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != COMPLETE_FILE and not path.name.endswith(".tmp")
    }


def checkpoints(output_dir: Path) -> Iterator[Path]:
    """Yield the checkpoint folders under `output_dir`, newest (highest step) first."""
    numbered = [(int(m[1]), p) for p in output_dir.glob("*") if (m := _NAME.fullmatch(p.name))]
    for _, path in sorted(numbered, reverse=True):
        yield path


def delete_older(newest: Path, num_kept: int) -> None:
    """Keep `newest` and the checkpoints just before it, `num_kept` in all; delete older ones."""
    folders = list(checkpoints(newest.parent))
    for folder in folders[folders.index(newest) + num_kept :]:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explain_full_disk(output_dir: Path, num_bytes: int) -> Iterator[None]:
    """Convert the error of a full disk into one line; the training stays resumable.

    Args:
        output_dir: folder of the training.
        num_bytes: size of the trained weights.

    Raises:
        CheckpointError: naming the file, the size of a checkpoint and the free space. An incomplete
            checkpoint is removed, earlier ones stay.
    """
    try:
        with explain_write_errors(output_dir, NUM_COPIES * num_bytes):
            yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        for folder in checkpoints(output_dir):
            if find_fault(folder) is not None:
                shutil.rmtree(folder, ignore_errors=True)
        kept = next(checkpoints(output_dir), None)
        raise CheckpointError(
            f"{error.filename} cannot be written: {error.strerror}; of the checkpoints before, "
            f"{f'{kept} is whole' if kept else 'there is none yet'}: make room and go on with -P "
            "resume=auto"
        ) from error


def check_whole(folder: Path) -> None:
    """Raise unless the folder is a complete checkpoint.

    Raises:
        CheckpointError: naming the folder and the fault.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder} does not exist")
    if fault := find_fault(folder):
        raise CheckpointError(f"checkpoint {folder} is not whole: {fault}")


def check_same_config(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    folder: Path,
    *,
    what: str = "checkpoint",
    advice: str = "go on with the same values, or start anew without resume",
) -> None:
    """Raise if the saved configuration of a folder differs from the current one; both are flat.

    Raises:
        CheckpointError: naming the content of the folder (`what`), each key with its saved and its
            current value, and what the user can do (`advice`).
    """
    different = [key for key in sorted({*saved, *current}) if saved.get(key) != current.get(key)]
    if different:
        listed = "; ".join(f"{k} was {saved.get(k)!r}, is {current.get(k)!r}" for k in different)
        raise CheckpointError(f"{what} {folder} is from another configuration: {listed}; {advice}")


@dataclass(frozen=True)
class Start:
    """The point where a training begins."""

    # A complete checkpoint of the same configuration; None for a fresh start.
    resume_from: Path | None = None
    finished: bool = False  # whether the training is finished already
    run_id: str | None = None  # the tracker's run that the training belongs to, if any


def choose_start(
    resume: str | None,
    output_dir: Path,
    identity: Mapping[str, Any],
    num_processes: int = 1,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Start:
    """Decide where to begin, and log the decision in one line.

    Args:
        resume: None, `auto` or a checkpoint folder.
        output_dir: the training's folder.
        identity: the configuration and data digests, flat; a checkpoint must have the same.
        num_processes: number of processes, on which examples and dropout of a step depend; a
            checkpoint must have the same.
        settings: other values, flat; those that differ from the checkpoint's are logged.

    Raises:
        CheckpointError: when the named checkpoint is incomplete or is from another configuration or
            number of processes, or `output_dir` holds something else.
    """
    if resume is None:
        set_aside(output_dir)
        return Start()
    finished = output_dir / FINISHED_FILE
    if finished.is_file():
        with convert_errors(finished):
            done = read_json(finished)
            check_same_config(_without(done["identity"], settings), identity, output_dir)
            logger.info("%s is finished (%s steps): nothing to do", output_dir, done["step"])
            return Start(finished=True, run_id=done["run_id"])
    chosen = Path(resume) if resume != AUTO else _newest_whole(output_dir)
    if chosen is None:
        logger.info("no checkpoint in %s: a fresh start", output_dir)
        set_aside(output_dir)
        return Start()
    check_whole(chosen)
    with convert_errors(chosen):
        state = read_json(chosen / CURRICULUM_FILE)
        before = {**state["identity"], **state.get("settings", {})}
        saved = _without(state["identity"], settings)
        saved["number of processes"] = state["num_processes"]
        check_same_config(saved, {**identity, "number of processes": num_processes}, chosen)
        start, step = Start(resume_from=chosen, run_id=state["run_id"]), int(state["step"])
        int(state["journal"])  # a checkpoint of an earlier version has none
    logger.info("going on from %s (step %s)", chosen, step)
    changed = [key for key in settings if key in before and before[key] != settings[key]]
    if changed:
        listed = (f"{key} was {before[key]!r:.60}, is {settings[key]!r:.60}" for key in changed)
        logger.info("changed since this checkpoint: %s", "; ".join(listed))
    clear_leftovers(chosen.parent)
    if chosen.parent.resolve() != output_dir.resolve():
        set_aside(output_dir)
        if (chosen.parent / BEST).is_dir():
            staged = output_dir / f".{BEST}.new"
            shutil.copytree(chosen.parent / BEST, staged, dirs_exist_ok=True)
            replace_folder(staged, output_dir / BEST)
    return start


def _without(identity: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are compared; an older version may have saved others with them."""
    return {key: value for key, value in identity.items() if key not in settings}


def _newest_whole(output_dir: Path) -> Path | None:
    for folder in checkpoints(output_dir):
        fault = find_fault(folder)
        if fault is None:
            return folder
        logger.info("checkpoint %s is not whole (%s): trying the one before", folder, fault)
    return None


def clear_leftovers(output_dir: Path) -> None:
    """Remove what a killed training left of its files, or move back what it had moved aside."""
    for path in output_dir.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    for name in (BEST, FINAL):
        for path in output_dir.glob(f".{name}.*"):
            recover_folder(path, output_dir / name)


def set_aside(output_dir: Path) -> None:
    """Rename the folder with an earlier run's output before a fresh start; delete nothing.

    Raises:
        CheckpointError: when the folder holds files that are not a training's.
    """
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise CheckpointError(f"training.output_dir {output_dir} is a file; name a folder")
    if all(path.name.lstrip(".").startswith(_NO_TRAINING) for path in output_dir.iterdir()):
        clear_leftovers(output_dir)
        return
    if not (output_dir / EVENTS_FILE).is_file():
        raise CheckpointError(
            f"training.output_dir {output_dir} holds other files; name an empty or a new folder"
        )
    number = 1
    while (path := output_dir.with_name(f"{output_dir.name}.{number}")).exists():
        number += 1
    shutil.move(output_dir, path)
    logger.info(
        "%s held an earlier run: moved to %s (to go on with a run: resume=auto)", output_dir, path
    )
