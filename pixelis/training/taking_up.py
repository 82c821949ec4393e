"""What is said where a checkpoint that is whole cannot be taken up all the same.

Its digests say that nothing has changed since it was sealed, not who sealed it or with what.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from pixelis.errors import CheckpointError, UserError, in_one_line

_DAMAGED = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError),
    *(ValueError, SafetensorError),
)


@contextmanager
def told_of_damage(folder: Path) -> Iterator[None]:
    """Let what the block stumbles over in a checkpoint's content be one line.

    Raises:
        CheckpointError: naming the folder and what is wrong in it.
    """
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except _DAMAGED as error:
        said = in_one_line(error)
        if isinstance(error, KeyError):
            said = f"it lacks {said}"
        elif not isinstance(error, UserError):
            said = f"{type(error).__name__}: {said}"
        raise CheckpointError(f"checkpoint {folder} cannot be taken up: {said}") from error
