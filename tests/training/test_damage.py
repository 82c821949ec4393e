"""Checkpoints that are whole and hold what no training writes: one line, and never a traceback."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from pixelis.errors import CheckpointError, ConfigError, DataError
from pixelis.training.caches import noted_digests
from pixelis.training.checkpoint import (
    ADAPTER_FILE,
    COMPLETE_FILE,
    CURRICULUM_FILE,
    OPTIMIZER_FILE,
    SCHEDULER_FILE,
    convert_errors,
    find_fault,
    read_json,
    rng_file,
    seal,
    write_json,
)
from pixelis.training.inputs import data_digest
from pixelis.training.resume import FINISHED_FILE, choose_start

pytestmark = pytest.mark.integration

NESTED = "[" * 100_000


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


RNG_FILE = rng_file(0, 1)


def change_torch(name, **values):
    """Change what the Trainer saved with torch."""

    def harm(folder):
        with safe_globals():
            saved = torch.load(folder / name, weights_only=True)
        torch.save(saved | values, folder / name)

    return harm


def drop_numpy(folder):
    with safe_globals():
        saved = torch.load(folder / RNG_FILE, weights_only=True)
    del saved["numpy"]
    torch.save(saved, folder / RNG_FILE)


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


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (change(CURRICULUM_FILE, loader={}), "it lacks 'sampler'"),
        (change(CURRICULUM_FILE, loader=[1]), "TypeError: "),
        (lack(CURRICULUM_FILE, "callback"), "it lacks 'callback'"),
        (change(CURRICULUM_FILE, unlogged_loss=[[], 0]), "IndexError: "),
        (change(CURRICULUM_FILE, bad_steps=None), "TypeError: "),
        (change_torch(OPTIMIZER_FILE, param_groups=[]), "ValueError: "),
        (change_torch(OPTIMIZER_FILE, state={99999: {"exp_avg": torch.zeros(3)}}), ""),
        (write(OPTIMIZER_FILE, "no tensors" * 9), ""),
        (write(SCHEDULER_FILE, "[1]"), ""),
        (run_code, ""),
        (change_torch(RNG_FILE, python=(3, "x", None)), ""),
        (change_torch(RNG_FILE, cpu="x"), "TypeError: "),
        (drop_numpy, "it lacks 'numpy'"),
        (change("trainer_state.json", global_step=7), "global_step in trainer_state.json must be"),
        (change("trainer_state.json", of_the_future=1), "TypeError: "),
        (cut_tensors, "RuntimeError: "),
    ],
    ids=range(16),
)
def test_what_no_training_writes(train, advancing, checkpoint, harm, message):
    harm(checkpoint)
    seal(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        train(advancing, batch_size=1, output_dir=checkpoint.parent, resume_from=checkpoint)
    line = str(caught.value)
    assert line.startswith(f"checkpoint {checkpoint} cannot be taken up: {message}")
    assert line.isprintable() and len(line) < 1000
    assert not os.path.exists("it-ran")


def test_a_checkpoint_of_an_earlier_version_is_refused(checkpoint):
    for name in (OPTIMIZER_FILE, RNG_FILE):
        (checkpoint / name).unlink()
    (checkpoint / "optimizer.safetensors").touch()
    seal(checkpoint)
    identity = read_json(checkpoint / CURRICULUM_FILE)["identity"]
    with pytest.raises(CheckpointError) as caught:
        choose_start(str(checkpoint), checkpoint.parent, identity)
    assert str(caught.value) == (
        f"checkpoint {checkpoint} cannot be taken up: it lacks {OPTIMIZER_FILE}, {RNG_FILE} "
        "(written by an earlier version?); go on with that version, or start anew without resume"
    )


@pytest.mark.parametrize("text", ["{", NESTED])
def test_a_broken_state_of_the_loop(train, advancing, checkpoint, text):
    path = checkpoint / "trainer_state.json"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        train(advancing, batch_size=1, output_dir=checkpoint.parent, resume_from=checkpoint)
    assert str(caught.value).startswith(f"{path} cannot be read: ")


@pytest.mark.parametrize(
    ("harm", "rule"),
    [
        (lack(CURRICULUM_FILE, "identity"), "identity in {} must be dict, got 'nothing'"),
        (change(CURRICULUM_FILE, identity=[1]), "identity in {} must be dict, got [1]"),
        (change(CURRICULUM_FILE, step="x"), "step in {} must be int, got 'x'"),
        (change(CURRICULUM_FILE, run_id=7), "run_id in {} must be str or null, got 7"),
        (write(CURRICULUM_FILE, "[]"), "identity in {} must be dict, got 'nothing'"),
    ],
    ids=range(5),
)
def test_a_start_says_what_it_needs(checkpoint, harm, rule):
    harm(checkpoint)
    seal(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        choose_start(str(checkpoint), checkpoint.parent, {})
    expected = rule.format(CURRICULUM_FILE)
    assert str(caught.value) == f"checkpoint {checkpoint} cannot be taken up: {expected}"


def test_a_finished_training_of_no_configuration(checkpoint):
    path = checkpoint.parent / FINISHED_FILE
    write_json({"step": 8, "run_id": "abc", "identity": [1]}, path)
    with pytest.raises(CheckpointError, match=f"^{path} is damaged: identity must be a mapping$"):
        choose_start("auto", checkpoint.parent, {})


def test_json_that_is_nested_without_end(tmp_path, data_dir):
    for name in (COMPLETE_FILE, "x.json"):
        (tmp_path / name).write_text(NESTED)
    with pytest.raises(CheckpointError, match="x.json cannot be read: maximum recursion"):
        read_json(tmp_path / "x.json")
    assert find_fault(tmp_path).startswith(f"{COMPLETE_FILE} cannot be read (maximum recursion")
    data = shutil.copytree(data_dir, tmp_path / "data")
    right = noted_digests(data)
    (data / "summary.json").write_text(NESTED)
    with pytest.raises(DataError, match="does not hold the SHA-256 of each data file"):
        data_digest(data)
    assert noted_digests(data) == right


def test_what_is_no_damage_stays_what_it_is(tmp_path):
    for error in (CheckpointError("said already"), torch.OutOfMemoryError("full"), OSError(5, "x")):
        with pytest.raises(type(error)) as caught, convert_errors(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(CheckpointError, match=" cannot be taken up: step must be 1$"):
        with convert_errors(tmp_path):
            raise ConfigError("step must be 1")
