"""data-prep is SIGKILLed at random moments and started again: as if it never had been."""

import hashlib

import pytest

from tests.faults.processes import ROOT, Killer

pytestmark = pytest.mark.faults
ARGUMENTS = [
    *("--config", str(ROOT / "configs/smoke/data_prep.yaml")),
    *("--output_dir", "data", "--num_samples", "120", "--num_workers", "2"),
    *("--difficulty.correlation_samples", "0"),
]


def classify(place):
    if place.startswith(("mlruns", "artifacts", "mlflow.db")):
        return "upload"
    return "save" if place.startswith((".data.", "data")) else None


def snapshot(place):
    finished = [run for run in place.runs("data-prep") if run.info.status == "FINISHED"]
    run = max(finished, key=lambda run: run.info.start_time)  # killed after its last word: two
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((place.folder / "data").iterdir())
    }
    artifacts = place.client.list_artifacts(run.info.run_id, "data")
    return {
        "files": files,
        "metrics": place.histories(run),
        "digest": run.data.tags["pixelis.data_digest"],
        "artifacts": sorted((each.path, each.file_size) for each in artifacts),
        "inputs": sorted((i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs),
    }


def test_data_prep(new_place, starter, tell, is_full):
    killer = Killer(
        starter, "data_prep", ARGUMENTS, classify, whom=("main", "all", "worker"), seed=1
    )
    whole = new_place("whole")
    killer.whole(whole)
    expected = snapshot(whole)
    assert len(expected["files"]) == 6
    number, wanted = 0, 13 if is_full else 4
    while len(killer.moments) < wanted:
        place = new_place(f"killed-{number}")
        for _ in range(killer.random.choice((1, 1, 2, 3))):
            if len(killer.moments) < wanted:
                killer.kill(place)
        assert starter.finish(place, "data_prep", ARGUMENTS) == 0, place.log()[-3000:]
        assert snapshot(place) == expected, killer.moments
        assert place.statuses() <= {"FINISHED", "KILLED", "FAILED"}, killer.moments
        left = {p.name for p in place.folder.iterdir() if p.name.startswith(".data.")}
        assert left <= {".data.lock"}, killer.moments
        number += 1
    tell("SIGKILL of data-prep", len(killer.moments), detail="\n".join(killer.moments))
