"""Checks that a checkpoint is complete and readable, with errors in one line.

The Trainer writes and reads its own files (optimiser, scheduler, random generators, state). We add
the adapter, the curriculum's state and `complete.json`, which is written last and holds the SHA-256
of every other file.
"""

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from pixelis.errors import CheckpointError, UserError, in_one_line
from pixelis.files import explain_write_errors, fsync_folder, is_disk_full, write_atomic

COMPLETE_FILE = "complete.json"
CURRICULUM_FILE = "curriculum_state.json"
OPTIMIZER_FILE, SCHEDULER_FILE = OPTIMIZER_NAME, SCHEDULER_NAME
ADAPTER_FILE = "adapter_model.safetensors"
# Adapter and two moments; twice, because the checkpoint before stays until this one is complete.
NUM_COPIES = 6
_NAME = re.compile(r"checkpoint-(\d+)")
# Errors that reading damaged content may raise.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError),
    *(TypeError, ValueError, SafetensorError, pickle.UnpicklingError),
)


@contextmanager
def convert_errors(folder: Path) -> Iterator[None]:
    """Convert errors while reading a checkpoint into CheckpointError.

    The digests show that a checkpoint has not changed since it was written, but not that a training
    wrote it: its content may still be unreadable.

    Raises:
        CheckpointError: naming the folder and what is wrong in it.
    """
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except _DAMAGE as error:
        message = in_one_line(error)
        if isinstance(error, KeyError):
            message = f"it lacks {message}"
        elif not isinstance(error, UserError):
            message = f"{type(error).__name__}: {message}"
        raise CheckpointError(f"checkpoint {folder} cannot be taken up: {message}") from error


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


def rng_file(rank: int, world_size: int) -> str:
    """Return the name of the Trainer's file of a process's generators."""
    return "rng_state.pth" if world_size == 1 else f"rng_state_{rank}.pth"


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete: write the digests of its files once these are on disk."""
    fsync_folder(folder)
    write_json(_digests(folder), folder / COMPLETE_FILE)


def find_fault(folder: Path) -> str | None:
    """Return why a checkpoint is not complete, or None if it is."""
    try:
        sealed = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))
        current = _digests(folder)
    except (OSError, ValueError, RecursionError) as error:
        return f"{COMPLETE_FILE} cannot be read ({error})"
    if not isinstance(sealed, dict):
        return f"{COMPLETE_FILE} cannot be read (it holds no digests)"
    changed = sorted(n for n in {*sealed, *current} if sealed.get(n) != current.get(n))
    return f"{', '.join(changed)} differ from what was saved" if changed else None


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
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
        CheckpointError: naming the file, the size of a checkpoint and the free space. The
            incomplete checkpoint is removed, earlier ones stay.
    """
    try:
        with explain_write_errors(output_dir, NUM_COPIES * num_bytes):
            yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        torn = [each for each in checkpoints(output_dir) if find_fault(each) is not None]
        for folder in torn:
            shutil.rmtree(folder, ignore_errors=True)
        kept = next(checkpoints(output_dir), None)
        status = f"{kept} is whole" if kept else "there is none yet"
        raise CheckpointError(
            f"{torn[0] if torn else error.filename} cannot be written: {error.strerror}; of the "
            f"checkpoints before, {status}: make room and go on with -P resume=auto"
        ) from error


def check_whole(folder: Path) -> None:
    """Raise unless the folder is a complete checkpoint.

    Raises:
        CheckpointError: naming the folder and the fault.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder} does not exist")
    fault = find_fault(folder)
    if fault is not None:
        raise CheckpointError(f"checkpoint {folder} is not whole: {fault}")


def check_layout(folder: Path, world_size: int) -> None:
    """Raise unless a checkpoint has every file that the Trainer reads.

    The Trainer silently ignores a missing file, and a checkpoint of an earlier version has other
    files.

    Raises:
        CheckpointError: naming the missing files.
    """
    ranks = (rng_file(rank, world_size) for rank in range(world_size))
    names = (OPTIMIZER_FILE, SCHEDULER_FILE, *ranks)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(
            f"checkpoint {folder} cannot be taken up: it lacks {', '.join(missing)} (written by an "
            "earlier version?); go on with that version, or start anew without resume"
        )


def check_same_number(saved: int, current: int, folder: Path) -> None:
    """Raise if a checkpoint was made by another number of processes.

    Raises:
        CheckpointError: naming both numbers.
    """
    if saved != current:
        raise CheckpointError(
            f"checkpoint {folder} was made by {saved} process{'es' if saved > 1 else ''}, "
            f"this training has {current}: the examples of a step and every dropout depend on "
            f"their number; go on with {saved}, or start anew without resume"
        )


def check_same_config(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    folder: Path,
    *,
    what: str = "checkpoint",
    advice: str = "go on with the same values, or start anew without resume",
) -> None:
    """Raise if the saved configuration differs from the current one.

    Args:
        saved: the saved configuration, flat.
        current: the current configuration, flat.
        folder: folder of the checkpoint or output.
        what: noun for the folder's content, for the message.
        advice: what the user can do, for the message.

    Raises:
        CheckpointError: naming each key with its saved and its current value.
    """
    different = [key for key in sorted({*saved, *current}) if saved.get(key) != current.get(key)]
    if different:
        listed = "; ".join(f"{k} was {saved.get(k)!r}, is {current.get(k)!r}" for k in different)
        raise CheckpointError(f"{what} {folder} is from another configuration: {listed}; {advice}")
