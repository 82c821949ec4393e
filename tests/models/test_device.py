"""Where models compute; no GPU is needed to know which one it would be."""

import pytest
import torch
from torch import nn

from pixelis.models import device as device_module
from pixelis.models.device import best_device, on_best_device


@pytest.mark.parametrize(
    ("num_gpus", "local_rank", "expected"),
    [(0, None, "cpu"), (1, None, "cuda:0"), (4, "2", "cuda:2"), (1, "2", "cuda:0")],
)
def test_the_gpu_of_the_process(monkeypatch, num_gpus, local_rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(best_device()) == expected


def test_a_module_is_there_for_a_while(monkeypatch):
    """With `meta`, which is not where it was, standing in for a GPU."""
    moved = []

    class Noted(nn.Linear):
        def to(self, place):
            moved.append(str(place))
            return self

    monkeypatch.setattr(device_module, "best_device", lambda: torch.device("meta"))
    with pytest.raises(RuntimeError, match="broken"), on_best_device(Noted(2, 2)) as device:
        assert str(device) == "meta" and moved == ["meta"]
        raise RuntimeError("broken")
    assert moved == ["meta", "cpu"]
    monkeypatch.setattr(device_module, "best_device", lambda: torch.device("cpu"))
    with on_best_device(Noted(2, 2)) as device:
        assert str(device) == "cpu"
    assert moved == ["meta", "cpu"]
