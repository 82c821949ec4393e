"""data-prep as a user meets it, and every input that it refuses."""

import json
from pathlib import Path

import pytest

from pixelis.cli.data_prep import main

ROOT = Path(__file__).parent.parent.parent


def arguments(*words):
    return [
        *("--config", str(ROOT / "configs/smoke/data_prep.yaml")),
        *("--num_samples", "60", "--output_dir", "made", "--num_workers", "1", *words),
    ]


@pytest.mark.integration
def test_a_real_process_makes_data_and_records_it(workdir, runs, client, run_process):
    done = run_process("data_prep", arguments("--seed", "3"))
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
        (("--num_samples", "0"), "num_samples must be in [1, 5000000], got 0"),
        (("--source", "coco"), "source coco needs input: the folder of its images and instances"),
        (("--tasks", "[counting]"), "tasks must be among attribute_recognition, object_counting"),
        (("--input", "nothing.json"), "nothing.json"),
        (("--difficulty.model_name", "./no-model"), "./no-model"),
        (("--output_dir", "thesis"), "output_dir thesis holds other files; "),
        (("--output_dir", "file"), "output_dir file cannot be written: "),
    ],
)
def test_bad_input(workdir, refused, words, message):
    (workdir / "file").touch()
    (workdir / "thesis").mkdir()
    (workdir / "thesis" / "thesis.tex").touch()
    assert message in refused(main, arguments(*words))
