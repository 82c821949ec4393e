"""Choose the device of a process: its GPU if CUDA finds one, else the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def best_device() -> torch.device:
    """Return the GPU of this process on its machine (by LOCAL_RANK), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def on_best_device(module: nn.Module) -> Iterator[torch.device]:
    """Move a module to the best device inside the block, and back afterwards; yield the device."""
    before, device = next(module.parameters()).device, best_device()
    if before.type == device.type:
        yield before
        return
    module.to(device)
    try:
        yield device
    finally:
        module.to(before)
