"""A worker of a study with an objective that costs nothing: what a killed process is made of.

python objective.py URL FOLDER NUM_TRIALS SECONDS
"""

import json
import sys
import time
from pathlib import Path

from pixelis.experiments.tune import Settings, build_space, open_study, run_trials

STEPS = range(20, 101, 20)


def value(params, examples):
    """Better towards an interval of 60 and a threshold of -.1, and with every example."""
    near = 1 - abs(params["curriculum.advancement_interval"] - 60) / 100
    near -= abs(params["curriculum.rollback_threshold"] + 0.1)
    return near * examples / 100


def objective(folder, seconds):
    def run(trial):
        with (folder / "ran.jsonl").open("a") as file:
            file.write(json.dumps([trial.number, trial.params]) + "\n")
        for examples in STEPS:
            time.sleep(seconds / len(STEPS))
            if reason := trial.report(examples, value(trial.params, examples)):
                raise trial.pruned(reason)
        return value(trial.params, 100)

    return run


def main(url, folder, num_trials, seconds):
    from tests.experiments.tune.conftest import DEFAULTS, FIXED, SECTION

    space = build_space(SECTION, DEFAULTS, FIXED)
    settings = Settings(
        sampler="tpe",
        seed=3,
        pruner="median",
        warmup=20,
        examples=100,
        num_trials=int(num_trials),
    )
    study = open_study(url, "search", settings, identity={"a": 1})
    folder = Path(folder)
    run_trials(study, space, settings, objective(folder, float(seconds)), folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
