"""The batch size that fits: the same steps, in smaller forward passes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixelis.errors import ConfigError
from pixelis.training.batch_size import halves
from pixelis.training.checkpoint import ADAPTER_FILE, CURRICULUM_FILE, read_json
from pixelis.training.trainer import CurriculumTrainer
from tests.training.conftest import MODEL, TRAINING

pytestmark = pytest.mark.integration

DRY = {"lora_dropout": 0.0}  # forward passes of another size would draw other dropout
STEPS = {"max_steps": 3, "eval_steps": 3, "save_steps": 2, "logging_steps": 1}
SIXTEEN = {**STEPS, "batch_size": 16, "gradient_accumulation_steps": 1}
ROOM, TOO_LITTLE = 100, 4  # MiB more: 4 of 208 tokens fit there, 2 in 60, 8 in 150; or not even one
# As torch on GPUs and on CPUs, oneDNN, C++ and Python report it.
FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


class SmallTrainer(CurriculumTrainer):
    """A machine whose memory holds a backward pass of a few examples."""

    room: int
    failures: list
    tried: list

    def training_step(self, model, inputs, *arguments, **words):
        loss = super().training_step(model, inputs, *arguments, **words)
        size = len(inputs["input_ids"])
        if not self.is_in_train:
            self.tried.append((size, inputs["input_ids"].shape[1]))
        if size > self.room:
            raise self.failures[len(self.tried) % len(self.failures)]
        return loss


@pytest.fixture
def small(monkeypatch):
    """Train on a machine with room for so many examples; returns the sizes that were tried."""
    monkeypatch.setattr("pixelis.training.sft.CurriculumTrainer", SmallTrainer)

    def make(room, failures=FAILURES):
        monkeypatch.setattr(SmallTrainer, "room", room, raising=False)
        monkeypatch.setattr(SmallTrainer, "failures", failures, raising=False)
        monkeypatch.setattr(SmallTrainer, "tried", tried := [], raising=False)
        return tried

    return make


@pytest.mark.parametrize(
    ("split", "sizes"),
    [((16, 1), [8, 4, 2, 1]), ((4, 4), [2, 1]), ((6, 1), [3, 1]), ((5, 2), [2, 1]), ((7, 1), [1])],
)
def test_halves_divide_the_step(split, sizes):
    assert list(halves(split[0], split[0] * split[1])) == [split[0], *sizes]


def test_looking_for_it_changes_nothing(train, advancing, tmp_path):
    """Where the configured size fits: the same to the bit, dropout and all."""
    without, _, _ = train(advancing, output_dir=tmp_path / "without", **STEPS)
    with_search, _, lines = train(
        advancing, output_dir=tmp_path / "with", auto_batch_size=True, **STEPS
    )
    assert "batch size 2 x 2 (configured: 2 x 2)" in lines
    one, other = (load_file(r.final_dir / ADAPTER_FILE) for r in (without, with_search))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert without.losses == with_search.losses


def test_memory_that_is_short_halves_the_batch_and_nothing_else(train, advancing, small, tmp_path):
    tried = small(room=16)
    plenty, _, lines = train(advancing, model=DRY, output_dir=tmp_path / "plenty", **SIXTEEN)
    assert tried == [] and not any(line.startswith("batch size") for line in lines)
    tried = small(room=2)
    words = {**SIXTEEN, "auto_batch_size": True, "model": DRY, "output_dir": tmp_path / "short"}
    short, _, lines = train(advancing, **words)
    assert [size for size, _ in tried] == [16, 8, 4, 2]
    assert len({width for _, width in tried}) == 1  # the longest examples each time
    line = "batch size 2 x 8 (configured: 16 x 1)"
    assert line in lines
    one, other = (load_file(result.final_dir / ADAPTER_FILE) for result in (plenty, short))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-5, rtol=0)

    # Taken up again it is the same, however much memory there is now.
    checkpoint = tmp_path / "short" / "checkpoint-2"
    assert read_json(checkpoint / CURRICULUM_FILE)["batch_size"] == 2
    tried = small(room=16)
    _, _, lines = train(advancing, resume_from=checkpoint, **words)
    assert line in lines and tried == []


def test_memory_for_not_even_one_is_said_with_what_to_change(train, advancing, small):
    small(room=0)
    with pytest.raises(ConfigError, match="^training.batch_size: not even 1 example of ") as caught:
        train(advancing, auto_batch_size=True)
    assert "Set model.gradient_checkpointing=true, lower model.max_pixels" in str(caught.value)


def test_another_error_stays_what_it_is(train, advancing, small):
    small(room=0, failures=[RuntimeError("a bug")])
    with pytest.raises(RuntimeError, match="^a bug$"):
        train(advancing, auto_batch_size=True)


@pytest.fixture
def train_in_little_room(data_dir, advancing):
    """Train in a process whose search may take only so many MiB of address space more."""

    def run(output_dir, *, room, code):
        request = {
            "training": TRAINING
            | SIXTEEN
            | {"auto_batch_size": True, "output_dir": str(output_dir)},
            "model": MODEL | DRY,
            "curriculum": advancing,
            "data_dir": str(data_dir),
            "room": room,
        }
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("limited_training.py"), json.dumps(request)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "OMP_NUM_THREADS": "1",
                "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed is given back at once
            },
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.splitlines()[-1]

    return run


@pytest.mark.slow
def test_real_allocations_that_fail_halve_the_batch(
    train, train_in_little_room, advancing, tmp_path
):
    """The process may take so much address space, and no more."""
    plenty, _, _ = train(advancing, model=DRY, output_dir=tmp_path / "plenty", **SIXTEEN)
    fitting = train_in_little_room(tmp_path / "short", room=ROOM, code=0)
    size = int(fitting.split(" x ")[0])
    assert 1 <= size <= 8 and fitting == f"{size} x {16 // size}"
    one, other = (
        load_file(folder / ADAPTER_FILE) for folder in (plenty.final_dir, tmp_path / "short/final")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-5, rtol=0)

    error = train_in_little_room(tmp_path / "none", room=TOO_LITTLE, code=2)
    assert error.startswith("error: training.batch_size: not even 1 example of ")
