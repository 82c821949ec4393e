"""A worker of a study whose trials cost nothing, run as a process that tests kill.

python -m tests.experiments.tune.worker URL FOLDER '{"num_trials": 16, "seconds": 0.05, ...}'
"""

import json
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from pixelis.experiments.tune import storage
from pixelis.experiments.tune.sampling import SearchSettings
from pixelis.experiments.tune.space import build_space
from pixelis.experiments.tune.study import open_study
from pixelis.experiments.tune.trials import run_trials

DEFAULTS = {
    "curriculum.advancement_interval": 500,
    "curriculum.rollback_threshold": -0.05,
    "curriculum.enabled": True,
    "curriculum.strategy": "staged",
    "training.seed": 0,
    "curriculum.max_rollbacks": None,
    "data.path": "data",
}
FIXED = {"training.seed": "seeds are seeds_per_trial", "data.": "all see the same"}
SECTION = {
    "curriculum.advancement_interval": {"low": 10, "high": 100},
    "curriculum.rollback_threshold": {"low": -0.3, "high": -0.01},
}
GUIDE = {"curriculum.advancement_interval": 60, "curriculum.rollback_threshold": -0.1}


def value(params, examples=100):
    """Return a performance that grows towards the guide's values, and with every example."""
    near = 1 - abs(params["curriculum.advancement_interval"] - 60) / 100
    near -= abs(params["curriculum.rollback_threshold"] + 0.1)
    return near * examples / 100


def objective(folder, seconds=0.0, dies_at=None, study="search"):
    """Return an objective that notes each call in a file, reports and may be pruned or killed."""

    def run(trial):
        with (folder / "ran.jsonl").open("a") as file:
            line = {"study": study, "number": trial.number, "baseline": trial.baseline}
            file.write(json.dumps(line) + "\n")
        if trial.number == dies_at:
            os._exit(9)
        for examples in range(20, 101, 20):
            time.sleep(seconds / 5)
            params = {**GUIDE, **trial.params}
            if reason := trial.report(examples, value(params, examples)):
                raise trial.pruned(reason)
        return value(params)

    return run


def main(url, folder, options):
    """Open the study and one of its baselines, then run trials until there are enough."""
    options, folder = json.loads(options), Path(folder)
    host = options.get("host", socket.gethostname())
    socket.gethostname = lambda: host
    if "grace" in options:
        storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, options["grace"]
    pruner = options.get("pruner", "median")
    settings = SearchSettings("tpe", 3, pruner, 20, 100, options["num_trials"])
    space = build_space(SECTION, DEFAULTS, FIXED)
    (folder / f"ready-{os.getpid()}").touch()
    while "go" in options and not Path(options["go"]).exists():
        time.sleep(0.01)
    search = open_study(url, "search", settings, space=space, identity={"a": 1})
    call = {"seconds": options.get("seconds", 0), "dies_at": options.get("dies_at")}
    if options.get("baselines"):
        search.enqueue("guide", params=GUIDE)
        others = open_study(url, "baselines", replace(settings, num_trials=1), identity={"a": 1})
        others.enqueue("uniform", overrides={"curriculum.enabled": False})
        run_trials(others, objective(folder, study="baselines", **call), folder / "baselines")
    run_trials(search, objective(folder, **call), folder / "trials")


if __name__ == "__main__":
    main(*sys.argv[1:])
