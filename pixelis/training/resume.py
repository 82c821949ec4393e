"""The decision where a training begins: at step 0, at a checkpoint, or not at all if finished."""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from pixelis.errors import CheckpointError
from pixelis.files import recover_folder, replace_folder
from pixelis.training.checkpoint import (
    CURRICULUM_FILE,
    check_layout,
    check_same_config,
    check_same_number,
    check_whole,
    checkpoints,
    convert_errors,
    find_fault,
    read_json,
)
from pixelis.training.weights import BEST

logger = logging.getLogger(__name__)

EVENTS_FILE = "events.json"
FINISHED_FILE = "finished.json"
AUTO = "auto"
# The fields that a resume reads from a checkpoint, with their types.
_STATE = {
    "identity": (dict,),
    "num_processes": (int,),
    "step": (int,),
    "run_id": (str, NoneType),
    "journal": (int,),
}
# Names of the temporary files and folders that a kill may leave in a training's folder.
_LEFTOVER = re.compile(
    r"\.((events|finished|lora_ranks)\.json|lora_\w+\.html)\.\d+\.tmp"
    r"|\.(?P<folder>best|final)\.(new|\d+\.old)"
)


@dataclass(frozen=True)
class Start:
    """The point where a training begins.

    Attributes:
        resume_from: a complete checkpoint of the same configuration; None for a fresh start.
        finished: whether the training is finished already.
        run_id: the tracker's run that the training belongs to, if any.
    """

    resume_from: Path | None = None
    finished: bool = False
    run_id: str | None = None


def choose_start(
    resume: str | None,
    output_dir: Path,
    identity: Mapping[str, Any],
    num_processes: int = 1,
) -> Start:
    """Decide where to begin, and log the decision in one line.

    Args:
        resume: None, `auto` or a checkpoint folder.
        output_dir: the training's folder.
        identity: the configuration and data digests, flat; a checkpoint must have the same.
        num_processes: number of processes; a checkpoint must have the same.

    Raises:
        CheckpointError: when the named checkpoint is incomplete or is from another configuration or
            number of processes, or `output_dir` holds something else.
    """
    if resume is None:
        set_aside(output_dir)
        return Start()
    if output_dir.is_dir():
        clear_leftovers(output_dir)
    finished = output_dir / FINISHED_FILE
    if finished.is_file():
        done = read_json(finished)
        if not isinstance(done, dict) or {"identity", "step", "run_id"} - set(done):
            raise CheckpointError(f"{finished} is damaged: identity, step and run_id must be in it")
        if not isinstance(done["identity"], dict):
            raise CheckpointError(f"{finished} is damaged: identity must be a mapping")
        check_same_config(done["identity"], identity, output_dir)
        logger.info("%s is finished (%s steps): nothing to do", output_dir, done["step"])
        return Start(finished=True, run_id=done["run_id"])
    chosen = Path(resume) if resume != AUTO else _newest_whole(output_dir)
    if chosen is None:
        logger.info("no checkpoint in %s: a fresh start", output_dir)
        set_aside(output_dir)
        return Start()
    check_whole(chosen)
    state = _read_state(chosen)
    check_same_config(state["identity"], identity, chosen)
    check_same_number(state["num_processes"], num_processes, chosen)
    check_layout(chosen, num_processes)
    logger.info("going on from %s (step %s)", chosen, state["step"])
    if chosen.parent.resolve() != output_dir.resolve():
        set_aside(output_dir)
        _copy_best(chosen.parent, output_dir)
    return Start(resume_from=chosen, run_id=state["run_id"])


def _read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the checked state of the training that a checkpoint belongs to."""
    state = read_json(checkpoint / CURRICULUM_FILE)
    for name, kinds in _STATE.items():
        value = state.get(name, "nothing") if isinstance(state, dict) else "nothing"
        if type(value) not in kinds:
            rule = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise CheckpointError(
                f"checkpoint {checkpoint} cannot be taken up: {name} in {CURRICULUM_FILE} must be "
                f"{rule}, got {value!r:.100}"
            )
    return dict(state)


def read_trainer_state(checkpoint: Path) -> TrainerState:
    """Return the state of transformers' loop, checked to be at the checkpoint's step.

    Raises:
        CheckpointError: when it is missing, damaged or at another step.
    """
    path = checkpoint / TRAINER_STATE_NAME
    step = read_json(checkpoint / CURRICULUM_FILE)["step"]
    with convert_errors(checkpoint):
        state = TrainerState(**read_json(path))
        if type(state.global_step) is not int or state.global_step != step:
            raise CheckpointError(
                f"checkpoint {checkpoint} cannot be taken up: global_step in {path.name} must be "
                f"{step}, got {state.global_step!r:.100}"
            )
    return state


def _copy_best(source: Path, output_dir: Path) -> None:
    """Copy the best adapter so far to another folder in which a training is resumed."""
    best = source / BEST
    if not best.is_dir():  # a kill may have come between the two moves of `replace_folder`
        best = next(iter(sorted(source.glob(f".{BEST}.*.old"))), best)
    if best.is_dir():
        output_dir.mkdir(parents=True, exist_ok=True)
        staged = output_dir / f".{BEST}.new"
        shutil.copytree(best, staged, dirs_exist_ok=True)
        replace_folder(staged, output_dir / BEST)


def _newest_whole(output_dir: Path) -> Path | None:
    for folder in checkpoints(output_dir):
        fault = find_fault(folder)
        if fault is None:
            return folder
        logger.info("checkpoint %s is not whole (%s): trying the one before", folder, fault)
    return None


def clear_leftovers(output_dir: Path) -> None:
    """Remove the temporary files of a killed training, and nothing else.

    A folder that was moved aside for a new one is moved back if the new one does not exist.
    """
    for path in sorted(output_dir.glob(".*")):
        match = _LEFTOVER.fullmatch(path.name)
        if match and match["folder"] and path.is_dir():
            recover_folder(path, output_dir / match["folder"])
        elif match and path.is_file():
            path.unlink(missing_ok=True)


def set_aside(output_dir: Path) -> None:
    """Rename the folder with an earlier run's output before a fresh start; delete nothing.

    Raises:
        CheckpointError: when the folder holds files that are not a training's.
    """
    if not output_dir.exists():
        return
    if output_dir.is_dir():
        clear_leftovers(output_dir)
    else:
        raise CheckpointError(f"training.output_dir {output_dir} is a file; name a folder")
    # `sync` looks here for the records that an earlier run could not send to its tracker.
    journals = ("journal-", "refused-")
    if all(path.name.lstrip(".").startswith(journals) for path in output_dir.iterdir()):
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
