"""The command line in two processes on CPUs (gloo), started by torchrun and by accelerate."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pixelis.training.checkpoint import ADAPTER_FILE, find_fault
from tests.forking import ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
]  # two processes from nothing: half a minute each

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": ("torchrun", "--standalone", "--nproc_per_node", "2"),
    "fsdp": (
        *("accelerate", "launch", "--config_file", str(ROOT / "configs/accelerate/fsdp.yaml")),
        *("--num_processes", "2"),
    ),
}
OPTIONS = {
    "config": ROOT / "configs/smoke/training_params.yaml",
    "model": ROOT / "configs/model_arch.yaml",
    "data.path": "data",
    "training.output_dir": "out",
    "training.max_steps": 2,
    "training.batch_size": 1,
    "training.eval_steps": 2,
    "training.save_steps": 2,
    "training.max_length": 512,
    "curriculum.eval_samples_per_difficulty": 2,
    "evaluation.enabled": "false",
}


@pytest.fixture
def launch(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")

    def run(launcher, **changed):
        options = OPTIONS | {key.replace("__", "."): value for key, value in changed.items()}
        argv = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        name, *rest = LAUNCHERS[launcher]
        return subprocess.run(
            [BIN / name, *rest, "-m", "pixelis.cli.sft", *argv],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
            },
        )

    return run


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_starts_two_processes_of_one_training(launch, tmp_path, launcher):
    done = launch(launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Final Curriculum Statistics:") == 1
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert find_fault(checkpoint) is None
    assert all((checkpoint / f"rng_state_{rank}.pth").is_file() for rank in (0, 1))
    adapter = load_file(tmp_path / "out" / "final" / ADAPTER_FILE)
    assert adapter and all(tensor.numel() > 0 for tensor in adapter.values())


def test_an_error_is_shown_once(launch):
    done = launch("torchrun", model__max_pixels=1)
    assert done.returncode != 0
    message = "model.min_pixels must be <= model.max_pixels, got 3136 > 1"
    assert (done.stdout + done.stderr).count(f"{message}\n") == 1
