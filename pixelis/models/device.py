"""Where a model computes: on this process's GPU where CUDA sees one, else on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def best_device() -> torch.device:
    """The GPU of this process among those of its machine (LOCAL_RANK), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def on_best_device(module: nn.Module) -> Iterator[torch.device]:
    """Have a module on the best device for a while, and then where it was; yields the device."""
    before, device = next(module.parameters()).device, best_device()
    if before.type == device.type:
        yield before
        return
    module.to(device)
    try:
        yield device
    finally:
        module.to(before)
