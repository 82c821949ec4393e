"""What a checkpoint holds, in safetensors and JSON only, and how a whole one is told from a torn.

`complete.json` is written last and holds the SHA-256 of every other file.
"""

import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelis.errors import CheckpointError
from pixelis.files import (
    explain_write_errors,
    fsync_folder,
    is_disk_full,
    write_atomic,
)
from pixelis.training.taking_up import told_of_damage

COMPLETE_FILE = "complete.json"
CURRICULUM_FILE = "curriculum_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
GROUPS_FILE = "optimizer_groups.json"
SCHEDULER_FILE = "scheduler.json"
RNG_FILE = "rng_state.json"  # of the only, or the first process; see `rng_file`
ADAPTER_FILE = "adapter_model.safetensors"
NUM_COPIES = 6  # adapter and moments of a checkpoint, and of the one before until it is whole
_NAME = re.compile(r"checkpoint-(\d+)")


def write_json(value: Any, path: Path) -> None:
    """Write JSON whole or not at all, see `write_atomic`."""
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


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A copy; of a tensor that is sharded over processes, which all have to ask, all of it."""
    if isinstance(tensor, DTensor):
        whole_tensor: torch.Tensor = tensor.full_tensor()
        return whole_tensor.detach().clone()
    return tensor.detach().clone()


def laid_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded where the other one is."""
    if not isinstance(like, DTensor):
        return tensor
    # Every process has all of it: nothing needs to be sent.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def optimizer_tensors(optimizer: Any) -> dict[str, torch.Tensor]:
    """The optimiser's moments as `<parameter index>.<name>` -> tensor, copied."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": whole(value).contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(
    optimizer: Any, tensors: Mapping[str, torch.Tensor], groups: list[dict[str, Any]] | None = None
) -> None:
    """Put moments back; the groups (learning rates) stay as they are where none are given."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        copied = value.clone()
        if copied.shape == like.shape:  # all but the count of steps
            copied = laid_out(copied, like)
        state.setdefault(int(index), {})[name] = copied
    current = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups or current})


def save_optimizer(
    optimizer: Any, scheduler: Any, folder: Path, *, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write moments (`optimizer_tensors`), parameter groups and the schedule's position."""
    save_file(dict(tensors), folder / OPTIMIZER_FILE)
    write_json(optimizer.state_dict()["param_groups"], folder / GROUPS_FILE)
    write_json(scheduler.state_dict(), folder / SCHEDULER_FILE)


def load_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Read what `save_optimizer` wrote."""
    with told_of_damage(folder):
        restore_optimizer(
            optimizer, load_file(folder / OPTIMIZER_FILE), read_json(folder / GROUPS_FILE)
        )
        scheduler.load_state_dict(read_json(folder / SCHEDULER_FILE))


def rng_file(rank: int) -> str:
    """Where the generators of a process are kept; the first one's have the plain name."""
    name = Path(RNG_FILE)
    return f"{name.stem}_{rank}{name.suffix}" if rank else RNG_FILE


def rng_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, as plain JSON."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [s.tolist() for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }


def load_rng(folder: Path, rank: int = 0) -> None:
    """Put the generators back to where `rng_state` found this process's."""
    with told_of_damage(folder):
        _set_rng(read_json(folder / rng_file(rank)))


def _set_rng(state: Mapping[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in state["cuda"]])


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != COMPLETE_FILE and not path.name.endswith(".tmp")
    }


def seal(folder: Path) -> None:
    """Mark a checkpoint as whole: the digests of its files, written when these are on disk."""
    fsync_folder(folder)
    write_json(_digests(folder), folder / COMPLETE_FILE)


def find_fault(folder: Path) -> str | None:
    """Why a checkpoint is not whole, or None where it is."""
    try:
        sealed = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))
        found = _digests(folder)
    except (OSError, ValueError, RecursionError) as error:
        return f"{COMPLETE_FILE} cannot be read ({error})"
    if not isinstance(sealed, dict):
        return f"{COMPLETE_FILE} cannot be read (it holds no digests)"
    changed = sorted(n for n in {*sealed, *found} if sealed.get(n) != found.get(n))
    return f"{', '.join(changed)} differ from what was saved" if changed else None


def checkpoints(output_dir: Path) -> Iterator[Path]:
    """The checkpoint folders under `output_dir`, newest (highest step) first."""
    found = [(int(m[1]), p) for p in output_dir.glob("*") if (m := _NAME.fullmatch(p.name))]
    for _, path in sorted(found, reverse=True):
        yield path


def delete_older(newest: Path, num_kept: int, spare: Path | None = None) -> None:
    """Keep `newest` and the checkpoints just before it, `num_kept` in all; delete older ones.

    `spare` stays as well, however old it is.
    """
    found = list(checkpoints(newest.parent))
    for folder in found[found.index(newest) + num_kept :]:
        if folder != spare:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def told_of_full_disk(output_dir: Path, num_bytes: int) -> Iterator[None]:
    """End a training that the disk has no more room for: resumable, and saying what it needs.

    Args:
        output_dir: of the training.
        num_bytes: of what it trains.

    Raises:
        CheckpointError: naming the file, what a checkpoint takes and what is free; what the disk
            took of a checkpoint is removed, those before it stay.
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
        begun = f"{kept} is whole" if kept else "there is none yet"
        raise CheckpointError(
            f"{torn[0] if torn else error.filename} cannot be written: {error.strerror}; of the "
            f"checkpoints before, {begun}: make room and go on with -P resume=auto"
        ) from error


def check_whole(folder: Path) -> None:
    """Raise unless the folder is a whole checkpoint of ours.

    Raises:
        CheckpointError: naming the folder and the fault.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder} does not exist")
    fault = find_fault(folder)
    if fault is not None:
        raise CheckpointError(f"checkpoint {folder} is not whole: {fault}")


def check_same_number(saved: int, current: int, folder: Path) -> None:
    """Raise where a checkpoint was made by another number of processes.

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
    """Raise where something was made with another configuration.

    Args:
        saved: its configuration, flat.
        current: the one that it would be taken up with.
        folder: where it lies.
        what: it is, for the message.
        advice: what the user can do.

    Raises:
        CheckpointError: naming each key with its saved and its current value.
    """
    different = [key for key in sorted({*saved, *current}) if saved.get(key) != current.get(key)]
    if different:
        listed = "; ".join(f"{k} was {saved.get(k)!r}, is {current.get(k)!r}" for k in different)
        raise CheckpointError(f"{what} {folder} is from another configuration: {listed}; {advice}")
