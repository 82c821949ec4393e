"""data-prep as a user meets it, and every input that it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.cli.arguments import run_cli
from pixelis.cli.data_prep import main

ROOT = Path(__file__).parent.parent.parent


def arguments(*words):
    return [
        *("--config", str(ROOT / "configs/smoke/data_prep.yaml")),
        *("--num_samples", "60", "--output_dir", "made", "--num_workers", "1", *words),
    ]


@pytest.mark.integration
def test_a_real_process_makes_data_and_records_it(workdir, runs, client):
    done = subprocess.run(
        [sys.executable, "-m", "pixelis.cli.data_prep", *arguments("--seed", "3")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "60 examples in made" in done.stdout
    names = {"cota_simple.parquet", "cota_medium.parquet", "cota_hard.parquet", "summary.json"}
    names |= {"difficulty.png", "examples.png"}
    assert {path.name for path in (workdir / "made").iterdir()} == names
    summary = json.loads((workdir / "made" / "summary.json").read_text())
    assert sum(summary["by_split_and_difficulty"].values()) == 60
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "data-prep 60 scenes seed 3"
    assert run.data.params["seed"] == "3"
    digests = {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert digests.keys() == {"cota_simple", "cota_medium", "cota_hard"}
    assert all(summary["sha256"][f"{n}.parquet"].startswith(d) for n, d in digests.items())
    kept = client.download_artifacts(run.info.run_id, "data/summary.json")
    assert json.loads(Path(kept).read_text()) == summary


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--num_sample", "3"), "Unknown key 'num_sample' in the command line. Did you mean "),
        (("--num_samples", "many"), "num_samples must be an integer, got 'many'"),
        (("--num_samples", "0"), "num_samples must be >= 1, got 0"),
        (("--source", "cocoa"), "source must be one of scenes, coco, got 'cocoa'"),
        (("--source", "coco"), "source coco needs input: the folder of its images and instances"),
        (("--tasks", "[counting]"), "tasks must be among attribute_recognition, object_counting"),
        (("--input", "nothing.json"), "nothing.json"),
        (("--difficulty.thresholds", "[0.6, 0.4]"), "difficulty.thresholds must be two rising"),
        (("--difficulty.scorer", "mine"), "difficulty.scorer must be one of composite, model"),
        (("--difficulty.model_name", "./no-model"), "./no-model"),
        (("--difficulty.task", "0.5"), "must sum to 1, got 1.4"),
        (("--output_dir", "thesis"), "output_dir thesis holds other files; "),
        (("--output_dir", "file"), "output_dir file is a file; name a folder"),
    ],
)
def test_bad_input(workdir, runs, files_below, capfd, words, message):
    (workdir / "file").touch()
    (workdir / "thesis").mkdir()
    (workdir / "thesis" / "thesis.tex").touch()
    before = files_below(workdir)
    assert run_cli(main, arguments(*words)) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith("error: ") and message in line
    assert files_below(workdir) == before and runs() == []
