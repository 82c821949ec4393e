"""sft is SIGKILLed at random moments and started again: as if it never had been."""

import json
from functools import partial

import pytest

from tests.faults.processes import Killer
from tests.faults.settings import sft_arguments

pytestmark = pytest.mark.faults
ARGUMENTS = [*sft_arguments("out"), "--resume", "auto"]


def classify(place):
    if place.startswith(("mlruns", "artifacts", "mlflow.db")):
        return "upload"
    if place.startswith("out/"):
        return "save"
    return "cache" if place.startswith(".data.cache") else None


def snapshot(place, expected):
    (run,) = [run for run in place.runs("sft") if run.info.status == "FINISHED"]
    out = place.folder / "out"
    histories = place.histories(run)
    for key, values in histories.items():
        assert len({step for step, _ in values}) == len(values), key
    events = json.loads((out / "events.json").read_text())
    assert json.loads(place.artifact(run, "curriculum/events.json")) == events
    adapters = place.client.list_artifacts(run.info.run_id, "evaluation")
    return {
        "histories": histories,
        "events": events,
        "final": (out / "final/adapter_model.safetensors").read_bytes(),
        "best": (out / "best/adapter_model.safetensors").read_bytes(),
        "files": sorted(path.name for path in out.iterdir() if "journal-" not in path.name),
        "params": run.data.params,
        # A table that is sent once more is written by another library, with other spaces.
        "rollouts": json.loads(place.artifact(run, "evaluation/rollouts.json")),
        "artifacts": sorted(each.path for each in adapters),
    }


def test_sft(new_place, starter, made_data, tell, is_full):
    killer = Killer(starter, "sft", ARGUMENTS, classify, seed=2)
    make_place = partial(new_place, data=made_data)
    wanted = 15 if is_full else 4
    expected = killer.run(make_place, snapshot, wanted=wanted, repeats=(1, 2, 3))
    assert {event["kind"] for event in expected["events"]} >= {"start", "advance", "end"}
    killer.tell(tell)
