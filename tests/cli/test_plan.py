"""The plan of a training, from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def plan(tmp_path):
    def run(*argv, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "pixelis.cli.plan", *argv],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "HF_HOME": str(tmp_path),  # nothing is cached
                "https_proxy": "http://127.0.0.1:9",  # and the network is away
            },
            timeout=600,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


def test_the_7b_is_planned_without_weights_or_network(plan, tmp_path):
    said = plan(
        *("--config", "configs/training_params_qwen2_5_vl_7b.yaml"),
        *("--model", "configs/model_arch_qwen2_5_vl_7b.yaml"),
        *("--data.path", str(tmp_path / "none"), "--gpu", "A10G"),
        *("--tokens_per_second", "3000", "--json", str(tmp_path / "plan.json")),
    )
    found = json.loads((tmp_path / "plan.json").read_text())
    assert (found["trainable"], found["fits"]) == (80_740_352, False)
    assert found["advice"][-1]["fits"]
    assert found["hours"] == pytest.approx(4096 * 16 * 10_000 / 3000 / 3600)
    assert [stage["first_step"] for stage in found["course"]] == [1, 501, 1001]
    for words in ("80,740,352 (0.96%)", "self_attn.q_proj x 28", "base weights", "does not fit"):
        assert words in said.stdout
    assert said.stderr == ""


def test_an_unknown_gpu_is_one_line(plan, tmp_path):
    said = plan("--gpu", "A1000", "--data.path", str(tmp_path / "none"), code=2)
    assert said.stderr.startswith("error: gpu must be one of RTX-4090, ")
