"""evaluate is SIGKILLed at random moments and started again: the same answers."""

import json

import pytest

from tests.faults.processes import Killer
from tests.forking import ROOT

pytestmark = pytest.mark.faults
ARGUMENTS = [
    *("--config", str(ROOT / "configs/evaluate.yaml")),
    *("--model", str(ROOT / "configs/model_arch.yaml")),
    *("--data.path", "data", "--adapter", "adapter", "--samples_per_difficulty", "2"),
    *("--max_operations", "2", "--max_new_tokens", "40", "--bootstrap_samples", "20"),
    *("--batch_size", "2", "--temperature", "0.7", "--num_samples", "2"),
    *("--num_traces", "2"),
]


def classify(place):
    if place.startswith(("mlruns", "artifacts", "mlflow.db")):
        return "upload"
    return "save" if place.startswith("outputs") else None


def snapshot(place):
    finished = [run for run in place.runs("evaluate") if run.info.status == "FINISHED"]
    run = max(finished, key=lambda run: run.info.start_time)  # killed after its last word: two
    found = place.client.list_artifacts(run.info.run_id, "evaluation")
    return {
        "metrics": place.histories(run),
        "answers": json.loads(place.artifact(run, "evaluation/rollouts.json")),
        "table": place.artifact(run, "evaluation/table.txt"),
        "artifacts": sorted(each.path for each in found),
        "report": (place.folder / "outputs/evaluate/report.html").stat().st_size,
    }


def test_evaluate(new_place, starter, made_data, made_adapter, tell, is_full):
    killer = Killer(starter, "evaluate", ARGUMENTS, classify, seed=3)
    whole = new_place("whole", data=made_data, adapter=made_adapter)
    killer.whole(whole)
    expected = snapshot(whole)
    number, wanted = 0, 11 if is_full else 3
    while len(killer.moments) < wanted:
        place = new_place(f"killed-{number}", data=made_data, adapter=made_adapter)
        for _ in range(killer.random.choice((1, 1, 2, 3))):
            if len(killer.moments) < wanted:
                killer.kill(place)
        assert starter.finish(place, "evaluate", ARGUMENTS) == 0, place.log()[-3000:]
        found = snapshot(place)
        for key in set(expected) - {"report"}:
            assert found[key] == expected[key], (key, killer.moments)
        assert abs(found["report"] - expected["report"]) < 200, killer.moments
        assert place.statuses() <= {"FINISHED", "KILLED"}, killer.moments
        number += 1
    tell("SIGKILL of evaluate", len(killer.moments), detail="\n".join(killer.moments))
