"""2,000 steps of the smoke model in the real process: what it holds stays what it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("PIXELIS_FAULTS") != "full", reason="17 min; FULL=1 make faults"
    ),
]

ROOT = Path(__file__).parent.parent.parent
STEPS, WARM = 2000, 200
GROWTH = 1.05  # of the resident memory after step 200
FILES = 4  # open for a moment: a database's, a figure's


def test_memory_and_open_files_stay_what_they_were(tmp_path, tell):
    options = {
        "config": ROOT / "configs/smoke/training_params.yaml",
        "model": ROOT / "configs/model_arch.yaml",
        "data.prep": ROOT / "configs/smoke/data_prep.yaml",
        "data.path": "data",
        "training.output_dir": "out",
        "training.max_steps": STEPS,
        "evaluation.enabled": "false",
    }
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    subprocess.run(
        [
            *(sys.executable, Path(__file__).with_name("watched_sft.py"), "notes.jsonl"),
            *(word for key, value in options.items() for word in (f"--{key}", str(value))),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MLFLOW_TRACKING_URI": store,
            "OMP_NUM_THREADS": "1",
        },
        check=True,
        timeout=3600,
    )
    notes = [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines()]
    assert notes[-1]["step"] == STEPS
    # The mean of a few: a figure that is being drawn, or a delivery, holds memory for a moment.
    began = [note for note in notes if WARM <= note["step"] < WARM + 100]
    ended = [note for note in notes if note["step"] > STEPS - 100]
    means = [sum(note["rss"] for note in part) / len(part) for part in (began, ended)]
    assert means[1] < GROWTH * means[0], means
    growth = means[1] / means[0] - 1
    files = [note["files"] for note in notes if note["step"] >= WARM]
    assert max(files) - min(files) <= FILES, sorted(set(files))
    assert max(note["threads"] for note in notes[-5:]) <= max(note["threads"] for note in began)
    told = f"nothing: memory {growth:+.1%} after step {WARM}, {max(files)} files open at most"
    tell(f"{STEPS:,} steps in one process", 1, told)
