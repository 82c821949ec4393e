"""The batch size that fits: the same steps, in smaller forward passes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixelis.training.batch_size import Split
from pixelis.training.checkpoint import ADAPTER_FILE, CURRICULUM_FILE, read_json
from tests.training.conftest import MODEL, TRAINING

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
DRY = {"lora_dropout": 0.0}  # forward passes of another size would draw other dropout
STEPS = {"precision": "fp32", "max_steps": 3, "eval_steps": 3, "save_steps": 2, "logging_steps": 1}
ROOM, TOO_LITTLE = 100, 4  # MiB more: 4 of 208 tokens fit there, 2 in 60, 8 in 150; or not even one


@pytest.mark.parametrize(
    ("split", "sizes"),
    [((16, 1), [8, 4, 2, 1]), ((4, 4), [2, 1]), ((6, 1), [3, 1]), ((5, 2), [2, 1]), ((7, 1), [1])],
)
def test_halves_divide_the_step(split, sizes):
    share = split[0] * split[1]
    assert list(Split(*split).halves()) == [split, *((size, share // size) for size in sizes)]


def test_looking_for_it_changes_nothing(train, advancing, tmp_path):
    """Where the configured size fits: the same to the bit, dropout and all."""
    without, _, _ = train(advancing, output_dir=tmp_path / "without", **STEPS)
    with_search, _, lines = train(
        advancing, output_dir=tmp_path / "with", auto_batch_size=True, **STEPS
    )
    (line,) = [line for line in lines if line.startswith("batch size")]
    assert line == "batch size 2 x 2 (configured: 2 x 2)"
    one, other = (load_file(r.final_dir / ADAPTER_FILE) for r in (without, with_search))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert without.losses == with_search.losses


@pytest.fixture
def train_in_little_room(data_dir, advancing):
    def run(place, *, room, resume=None, code=0, **training):
        sizes = {"batch_size": 16, "gradient_accumulation_steps": 1, "auto_batch_size": True}
        request = {
            "training": TRAINING | STEPS | sizes | training | {"output_dir": str(place)},
            "model": MODEL | DRY,
            "curriculum": advancing,
            "data_dir": str(data_dir),
            "resume": resume and str(resume),
            "room": room,
        }
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("limited_training.py"), json.dumps(request)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed is given back at once
            },
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def test_memory_that_is_short_halves_the_batch_and_nothing_else(train_in_little_room, tmp_path):
    """A real allocation fails: the process may take so much address space, and no more."""
    plenty = train_in_little_room(tmp_path / "plenty", room=None)
    assert "found: ['16 x 1']" in plenty
    short = train_in_little_room(tmp_path / "short", room=ROOM)
    (found,) = [line for line in short if line.startswith("found: ")]
    size = int(found.split("'")[1].split(" x ")[0])
    assert 1 <= size <= 8 and found == f"found: ['{size} x {16 // size}']"
    (line,) = [line for line in short if line.startswith("batch size")]
    assert line == f"batch size {size} x {16 // size} (configured: 16 x 1)"
    one, other = (
        load_file(tmp_path / name / "final" / ADAPTER_FILE) for name in ("plenty", "short")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-5, rtol=0)

    # Taken up again it is the same, however much memory there is now.
    checkpoint = tmp_path / "short" / "checkpoint-2"
    assert read_json(checkpoint / CURRICULUM_FILE)["batch_size"] == size
    again = train_in_little_room(tmp_path / "short", room=None, resume=checkpoint)
    assert found in again and line in again


def test_memory_for_not_even_one_is_said_with_what_to_change(train_in_little_room, tmp_path):
    said = train_in_little_room(tmp_path / "out", room=TOO_LITTLE, code=2)
    assert said[-1].startswith("error: training.batch_size: not even 1 example of ")
    assert "Set model.gradient_checkpointing=true, lower model.max_pixels" in said[-1]
