"""JSON, seals and the order of checkpoints."""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from pixelis.errors import CheckpointError, ConfigError, DataError
from pixelis.training.checkpoint import (
    ADAPTER_FILE,
    COMPLETE_FILE,
    CURRICULUM_FILE,
    check_same_config,
    check_whole,
    checkpoints,
    choose_start,
    convert_errors,
    delete_older,
    find_fault,
    read_json,
    seal,
    write_json,
)
from pixelis.training.inputs import data_digest


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


# Whole, and of what no training writes: one line, and never a traceback


NESTED = "[" * 100_000
OPTIMIZER_FILE = "optimizer.pt"


def change(name, **values):
    return lambda folder: write_json(read_json(folder / name) | values, folder / name)


def lack(name, key):
    def harm(folder):
        kept = read_json(folder / name)
        del kept[key]
        write_json(kept, folder / name)

    return harm


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def change_torch(name, **values):
    """Change what the Trainer saved with torch."""

    def harm(folder):
        with safe_globals():
            saved = torch.load(folder / name, weights_only=True)
        torch.save(saved | values, folder / name)

    return harm


class Payload:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def run_code(folder):
    torch.save({"state": Payload()}, folder / OPTIMIZER_FILE)


def cut_tensors(folder):
    path = folder / ADAPTER_FILE
    save_file({name: value[:1].clone() for name, value in load_file(path).items()}, path)


@pytest.fixture
def checkpoint(whole, tmp_path):
    """The checkpoint at step 6 of a training, for us to harm."""
    place = tmp_path / "sft"
    shutil.copytree(whole.output_dir, place, ignore=shutil.ignore_patterns("checkpoint-8", "final"))
    return place / "checkpoint-6"


@pytest.mark.integration
@pytest.mark.parametrize(
    "harm",
    [
        change(CURRICULUM_FILE, loader={}),
        lack(CURRICULUM_FILE, "callback"),
        change(CURRICULUM_FILE, unlogged_loss=[[], 0]),
        change(CURRICULUM_FILE, bad_steps=None),
        change_torch(OPTIMIZER_FILE, param_groups=[]),
        change_torch(OPTIMIZER_FILE, state={99999: {"exp_avg": torch.zeros(3)}}),
        write(OPTIMIZER_FILE, "no tensors" * 9),
        run_code,
        write("scheduler.pt", "[1]"),
        change_torch("rng_state.pth", python=(3, "x", None)),
        change_torch("rng_state.pth", cpu="x"),
        change("trainer_state.json", of_the_future=1),
        write("trainer_state.json", NESTED),
        cut_tensors,
    ],
    ids=range(14),
)
def test_what_no_training_writes(train, advancing, checkpoint, harm):
    harm(checkpoint)
    seal(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        train(advancing, batch_size=1, output_dir=checkpoint.parent, resume_from=checkpoint)
    line = str(caught.value)
    assert line.startswith(f"checkpoint {checkpoint} cannot be taken up: ")
    assert line.isprintable() and len(line) < 1000
    assert not os.path.exists("it-ran")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lack(CURRICULUM_FILE, "journal"), "KeyError: 'journal'"),  # of an earlier version
        (change(CURRICULUM_FILE, identity=[1]), "TypeError: "),
        (change(CURRICULUM_FILE, step="x"), "ValueError: "),
        (write(CURRICULUM_FILE, "[]"), "TypeError: "),
    ],
    ids=range(4),
)
def test_a_start_from_what_no_training_writes(checkpoint, harm, message):
    identity = read_json(checkpoint / CURRICULUM_FILE)["identity"]
    harm(checkpoint)
    seal(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        choose_start(str(checkpoint), checkpoint.parent, identity)
    assert str(caught.value).startswith(f"checkpoint {checkpoint} cannot be taken up: {message}")


def test_json_that_is_nested_without_end(tmp_path, data_dir):
    for name in (COMPLETE_FILE, "x.json"):
        (tmp_path / name).write_text(NESTED)
    with pytest.raises(CheckpointError, match="x.json cannot be read: maximum recursion"):
        read_json(tmp_path / "x.json")
    assert find_fault(tmp_path).startswith(f"{COMPLETE_FILE} cannot be read (")
    data = shutil.copytree(data_dir, tmp_path / "data")
    (data / "summary.json").write_text(NESTED)
    with pytest.raises(DataError, match="does not hold the SHA-256 of each data file"):
        data_digest(data)


def test_what_is_no_damage_stays_what_it_is(tmp_path):
    for error in (CheckpointError("said already"), torch.OutOfMemoryError("full"), OSError(5, "x")):
        with pytest.raises(type(error)) as caught, convert_errors(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(CheckpointError, match=" cannot be taken up: step must be 1$"):
        with convert_errors(tmp_path):
            raise ConfigError("step must be 1")
