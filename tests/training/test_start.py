"""`num_processes`: processes that the command itself starts, hears and ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelis.errors import ConfigError, UserError
from pixelis.training.checkpoint import checkpoints, find_fault
from pixelis.training.start import check_num_processes, is_launched, start_processes

ROOT = Path(__file__).parent.parent.parent
JOINED = """
import sys
from pixelis.training.processes import join
processes = join()
line = f"rank {processes.rank} of {processes.gather(1)} {sys.argv[1:]}"
open(f"{processes.rank}.txt", "w").write(line)
processes.leave()
"""
# Leaves with the code that is its own, or is killed.
CODES = """
import os, sys, time
mine = sys.argv[1:][int(os.environ["RANK"])]
if mine == "waits":
    time.sleep(600)
if mine == "killed":
    os.kill(os.getpid(), 9)
sys.exit(int(mine))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(source, *argv):
        (tmp_path / "started.py").write_text(source)
        return start_processes("started", argv, 2)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    return run


def test_they_find_each_other_and_get_the_same_options(run, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run(JOINED, "--seed", "1") == 0
    for rank in (0, 1):
        said = (tmp_path / f"{rank}.txt").read_text()
        assert said == f"rank {rank} of [1, 1] ['--seed', '1']"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("codes", "code"),
    [("0 0", 0), ("1 2", 2), ("2 waits", 2), ("waits 1", 1), ("0 130", 130)],
)
def test_the_code_is_that_of_the_process_that_says_why(run, codes, code):
    assert run(CODES, *codes.split()) == code


def test_processes_that_were_all_killed_are_not_a_success(run):
    with pytest.raises(UserError, match="^every process ended without a word"):
        run(CODES, "killed", "killed")


@pytest.fixture
def sft(data_dir, tmp_path):
    """The command in a process of its own, told to start two."""
    options = {
        "config": ROOT / "configs/smoke/training_params.yaml",
        "model": ROOT / "configs/model_arch.yaml",
        "data.path": data_dir,
        "num_processes": 2,
        "training.output_dir": "out",
        "training.max_steps": 500,
        "training.batch_size": 1,
        "training.save_steps": 2,
        "training.eval_steps": 500,
        "training.max_length": 512,
        "curriculum.eval_samples_per_difficulty": 2,
        "evaluation.enabled": "false",
    }

    def start(**changed):
        words = options | {key.replace("__", "."): value for key, value in changed.items()}
        argv = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        return subprocess.Popen(
            [sys.executable, "-m", "pixelis.cli.sft", *argv],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if name != "RANK"},
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
            },
        )

    return start


def test_a_signal_to_the_command_stops_all_with_one_checkpoint(sft, tmp_path):
    out = tmp_path / "out"
    running = sft(accelerate_config=ROOT / "configs/accelerate/ddp.yaml")
    deadline = time.monotonic() + 240
    while not list(checkpoints(out)) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 130, said
    newest = next(checkpoints(out))
    assert said.count("stopped after step") == 1 and f"everything is in out/{newest.name}" in said
    assert find_fault(newest) is None
    assert "Traceback" not in said and "closing signal" not in said


def test_an_error_is_said_once_and_is_the_commands_own(sft):
    running = sft(model__max_pixels=1)
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 2
    rule = "model.min_pixels must be <= model.max_pixels, got 3136 > 1"
    assert [line for line in said.splitlines() if "rror" in line] == [f"error: {rule}"]


def test_what_a_launcher_started_is_what_the_key_says(monkeypatch):
    check_num_processes(None, 4)
    check_num_processes(4, 4)
    with pytest.raises(ConfigError, match="^num_processes is 8, but a launcher has started 4:"):
        check_num_processes(8, 4)
    for name in ("RANK", "MASTER_PORT", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    assert not is_launched()
    monkeypatch.setenv("RANK", "0")
    assert is_launched()
