"""evaluate is SIGKILLed at random moments and started again: the same answers."""

import json
from functools import partial

import pytest

from tests.faults.processes import Killer
from tests.forking import ROOT

pytestmark = pytest.mark.faults
ARGUMENTS = [
    *("--config", str(ROOT / "configs/evaluate.yaml")),
    *("--model", str(ROOT / "configs/model_arch.yaml")),
    *("--data.path", "data", "--adapter", "adapter", "--samples_per_difficulty", "2"),
    *("--max_operations", "2", "--max_new_tokens", "40"),
    *("--batch_size", "2", "--temperature", "0.7", "--num_samples", "2"),
    *("--num_traces", "2"),
]


def classify(place):
    if place.startswith(("mlruns", "artifacts", "mlflow.db")):
        return "upload"
    return "save" if place.startswith("outputs") else None


def snapshot(place, expected):
    finished = [run for run in place.runs("evaluate") if run.info.status == "FINISHED"]
    run = max(finished, key=lambda run: run.info.start_time)  # killed after its last word: two
    found = place.client.list_artifacts(run.info.run_id, "evaluation")
    report = (place.folder / "outputs/evaluate/report.html").stat().st_size
    assert expected is None or abs(report - expected["report"]) < 200
    return {
        "metrics": place.histories(run),
        "answers": json.loads(place.artifact(run, "evaluation/rollouts.json")),
        "table": place.artifact(run, "evaluation/table.txt"),
        "artifacts": sorted(each.path for each in found),
        "report": expected["report"] if expected else report,
    }


def test_evaluate(new_place, starter, made_data, made_adapter, tell, is_full):
    killer = Killer(starter, "evaluate", ARGUMENTS, classify, seed=3)
    make_place = partial(new_place, data=made_data, adapter=made_adapter)
    killer.run(make_place, snapshot, wanted=11 if is_full else 3)
    killer.tell(tell)
