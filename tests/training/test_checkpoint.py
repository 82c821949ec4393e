"""Everything that decides what comes next goes to disk and back, bit by bit."""

import json
import re

import pytest
import torch

from pixelis.errors import CheckpointError
from pixelis.training.checkpoint import (
    COMPLETE_FILE,
    check_same_config,
    check_same_number,
    check_whole,
    checkpoints,
    delete_older,
    find_fault,
    read_json,
    seal,
    write_json,
)
from pixelis.training.weights import optimizer_tensors, restore_optimizer


def build():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return model, optimizer, scheduler


def train(model, optimizer, scheduler, num_steps, first=0):
    for step in range(first, first + num_steps):
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(4, 3, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def test_moments_alone_leave_the_learning_rate_as_it_is():
    model, optimizer, scheduler = build()
    train(model, optimizer, scheduler, 2)
    kept = optimizer_tensors(optimizer)
    train(model, optimizer, scheduler, 2, first=2)
    rate = optimizer.param_groups[0]["lr"]
    restore_optimizer(optimizer, kept)
    assert optimizer.param_groups[0]["lr"] == rate
    now = optimizer_tensors(optimizer)
    assert now.keys() == kept.keys() and all(torch.equal(now[key], kept[key]) for key in kept)
    # What was kept is a copy on both sides.
    train(model, optimizer, scheduler, 1, first=4)
    assert all(torch.equal(now[key], kept[key]) for key in kept)


def test_json_is_there_whole_or_not_at_all(tmp_path):
    write_json({"a": [1, None]}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}


@pytest.mark.parametrize("content", [None, "{", "\udcff"])
def test_json_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=re.escape(f"{path} cannot be read: ")):
        read_json(path)


# Whole or torn


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "checkpoint-4"
    place.mkdir()
    (place / "a.bin").write_bytes(b"weights")
    write_json({"step": 4}, place / "state.json")
    seal(place)
    return place


def test_a_sealed_folder_is_whole(folder):
    assert find_fault(folder) is None
    check_whole(folder)
    assert set(json.loads((folder / COMPLETE_FILE).read_text())) == {"a.bin", "state.json"}
    # A temporary file that a killed process left says nothing about the rest.
    (folder / ".state.json.77.tmp").touch()
    assert find_fault(folder) is None


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda f: (f / "a.bin").write_bytes(b"weighty"), "a.bin differ from what was saved"),
        (lambda f: (f / "a.bin").write_bytes(b""), "a.bin differ from what was saved"),
        (
            lambda f: [p.unlink() for p in f.iterdir() if p.name != COMPLETE_FILE],
            "a.bin, state.json differ from what was saved",
        ),
        (
            lambda f: (f / COMPLETE_FILE).write_text('"a"'),
            "complete.json cannot be read (it holds no digests)",
        ),
    ],
)
def test_a_folder_that_is_not_whole(folder, harm, fault):
    harm(folder)
    assert find_fault(folder) == fault
    with pytest.raises(CheckpointError) as caught:
        check_whole(folder)
    assert str(caught.value) == f"checkpoint {folder} is not whole: {fault}"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint .*no does not exist"):
        check_whole(tmp_path / "no")


def test_checkpoints_are_found_newest_first(tmp_path):
    for name in ("checkpoint-9", "checkpoint-100", "checkpoint-20", "checkpoint-x", "best"):
        (tmp_path / name).mkdir()
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["checkpoint-100", "checkpoint-20", "checkpoint-9"]
    assert list(checkpoints(tmp_path / "no")) == []


@pytest.mark.parametrize(
    ("num_kept", "left"), [(1, [40, 30]), (2, [40, 30, 20]), (3, [40, 30, 20, 10]), (9, None)]
)
def test_older_checkpoints_are_deleted_later_ones_stay(tmp_path, num_kept, left):
    # 40 may be left from before a resume at 30 or earlier.
    for step in (10, 20, 30, 40):
        (tmp_path / f"checkpoint-{step}").mkdir()
    delete_older(tmp_path / "checkpoint-30", num_kept)
    left = left or [40, 30, 20, 10]
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in left]


def test_the_same_configuration_passes_and_another_is_named(tmp_path):
    check_same_config({"a": 1, "b": None}, {"a": 1, "b": None}, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        check_same_config({"a": 1, "b": "x", "c": 3}, {"a": 1, "b": "y", "d": 4}, tmp_path)
    assert str(caught.value) == (
        f"checkpoint {tmp_path} is from another configuration: b was 'x', is 'y'; "
        "c was 3, is None; d was None, is 4; "
        "go on with the same values, or start anew without resume"
    )


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path):
    check_same_number(2, 2, tmp_path)
    expected = f"checkpoint {tmp_path} was made by 1 process, this training has 4: the examples of"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}"):
        check_same_number(1, 4, tmp_path)
