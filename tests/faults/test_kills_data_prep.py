"""data-prep is SIGKILLed at random moments and started again: as if it never had been."""

import hashlib
import json
from functools import partial

import pytest

from tests.faults.pictures import drawn
from tests.faults.processes import Killer
from tests.forking import ROOT

pytestmark = pytest.mark.faults
ARGUMENTS = [
    *("--config", str(ROOT / "configs/smoke/data_prep.yaml")),
    *("--output_dir", "data", "--num_samples", "120", "--num_workers", "2"),
    *("--difficulty.correlation_samples", "0"),
]
IMPORT = [
    *("--config", str(ROOT / "configs/data_prep.yaml"), "--input", "records/some.jsonl"),
    *("--output_dir", "data", "--num_workers", "2", "--difficulty.correlation_samples", "0"),
]


def classify(place):
    if place.startswith(("mlruns", "artifacts", "mlflow.db")):
        return "upload"
    return "save" if place.startswith((".data.", "data")) else None


def snapshot(place, expected):
    finished = [run for run in place.runs("data-prep") if run.info.status == "FINISHED"]
    run = max(finished, key=lambda run: run.info.start_time)  # killed after its last word: two
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((place.folder / "data").iterdir())
    }
    artifacts = place.client.list_artifacts(run.info.run_id, "data")
    left = {path.name for path in place.folder.iterdir() if path.name.startswith(".data.")}
    assert left <= {".data.lock"}
    return {
        "files": files,
        "metrics": place.histories(run),
        "digest": run.data.tags["pixelis.data_digest"],
        "artifacts": sorted((each.path, each.file_size) for each in artifacts),
        "inputs": sorted((i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs),
    }


def kill(arguments, make_place, starter, tell, *, times, seed):
    whom = ("main", "all", "worker")
    killer = Killer(starter, "data_prep", arguments, classify, whom=whom, seed=seed)
    expected = killer.run(make_place, snapshot, wanted=times, failed={"FAILED"})
    killer.tell(tell)
    return expected


def test_data_prep(new_place, starter, tell, is_full):
    times = 13 if is_full else 4
    made = kill(ARGUMENTS, new_place, starter, tell, times=times, seed=1)
    assert len(made["files"]) == 6


def test_data_prep_of_an_import(new_place, starter, tell, is_full, tmp_path):
    source = tmp_path / "records"
    source.mkdir()
    drawn().save(source / "a.png")
    records = [
        {"id": str(n), "question": f"What is it, {n}?", "image": "a.png", "answer": "a circle"}
        for n in range(60)
    ]
    records[7]["image"] = "b.png"  # told as rejected
    text = "".join(json.dumps(record) + "\n" for record in records)
    (source / "some.jsonl").write_text(text, encoding="utf-8")
    make_place = partial(new_place, records=source)
    times = 4 if is_full else 1
    made = kill(IMPORT, make_place, starter, tell, times=times, seed=5)
    assert "rejected.jsonl" in made["files"]
