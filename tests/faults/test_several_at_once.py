"""Trainings and a search, started together in one folder on a store that is yet to be made."""

from collections import Counter

import pytest
import yaml

from pixelis.training.checkpoint import ADAPTER_FILE, read_json
from tests.faults.processes import Place
from tests.faults.settings import sft_arguments, tune_arguments

pytestmark = pytest.mark.faults
PREP = {
    "num_samples": 60,
    "num_workers": 1,
    "tasks": ["attribute_recognition", "text_extraction"],
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "self_correction_ratio": 0.0,
    "difficulty": {"correlation_samples": 0},
}


def test_trainings_and_a_search_at_once(tmp_path, starter, tell, is_full):
    place = Place(tmp_path / "work")
    (place.folder / "prep.yaml").write_text(yaml.safe_dump(PREP))
    words = {"data__prep": "prep.yaml"}
    seeds = (0, 1, 2, 3) if is_full else (0, 1)
    trainings = {
        seed: sft_arguments(f"out-{seed}", training__seed=seed, exp_name="at_once", **words)
        for seed in seeds
    }
    num_trials = 3 if is_full else 2
    search = tune_arguments("tuned", num_workers=2, num_trials=num_trials, final_seeds=0, **words)
    started = {
        seed: starter.start(place, "sft", training, from_nothing=True)
        for seed, training in trainings.items()
    }
    started["tune"] = starter.start(place, "tune", search, from_nothing=True)
    codes = {name: process.wait() for name, process in started.items()}
    assert set(codes.values()) == {0}, (codes, place.log()[-5000:])
    assert "Traceback" not in place.log()
    assert place.statuses() == {"FINISHED"}

    # Data, tokens and features were made by one of them.
    assert Counter(run.info.status for run in place.runs("data-prep")) == {"FINISHED": 1}
    cache = place.folder / ".data.cache"
    made = Counter(
        path.name.rpartition("-")[0] for path in cache.iterdir() if not path.name.startswith(".")
    )
    assert made["tokens-train"] == made["tokens-validation"] == made["vision"] == 1, made
    assert not list(cache.glob(".*.part"))

    runs = {run.data.tags["training.output_dir"]: run for run in place.runs("sft")}
    for seed in seeds:
        run, out = runs[f"out-{seed}"], place.folder / f"out-{seed}"
        assert run.data.tags["pixelis.seed"] == run.data.params["training.seed"] == str(seed)
        assert read_json(out / "finished.json")["run_id"] == run.info.run_id
        steps = [step for step, _ in place.histories(run)["curriculum/stage"]]
        assert steps == list(range(1, 7))
        assert "mlflow.parentRunId" not in run.data.tags
    (parent,) = place.runs("tune")
    trials = [r for r in runs.values() if r.data.tags.get("mlflow.parentRunId")]
    assert len(runs) == len(seeds) + len(trials)
    # The guide's settings are the search's first trial; the uniform mix has a study of its own.
    parts = Counter(run.data.tags["optuna.part"] for run in trials)
    assert parts == {"trials": num_trials, "baselines": 1}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}

    # Alone, with the same caches, a training ends with the same bytes.
    alone = sft_arguments("alone", training__seed=seeds[-1], **words)
    assert starter.finish(place, "sft", alone) == 0
    found = place.folder / f"out-{seeds[-1]}" / "final" / ADAPTER_FILE
    assert found.read_bytes() == (place.folder / "alone/final" / ADAPTER_FILE).read_bytes()
    tell("started together on a fresh store", len(codes))
