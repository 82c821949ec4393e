"""A worker on a machine of another name, with a folder of its own, as `objective.py` else.

python machine.py URL FOLDER HOST NUM_TRIALS SECONDS GO_FILE GRACE_SECONDS [NUMBER_TO_DIE_AT]
"""

import json
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from pixelis.experiments.tune import Settings, build_space, enqueue, open_study, run_trials, storage
from tests.experiments.tune.conftest import DEFAULTS, FIXED, SECTION
from tests.experiments.tune.objective import value

GUIDE = {"curriculum.advancement_interval": 60, "curriculum.rollback_threshold": -0.1}


def main(url, folder, host, num_trials, seconds, go, grace, dies_at="-1"):
    socket.gethostname = lambda: host
    storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, int(grace)
    space, folder = build_space(SECTION, DEFAULTS, FIXED), Path(folder)
    settings = Settings("random", 3, "none", 20, 100, int(num_trials))
    Path(folder, "ready").touch()
    while not Path(go).exists():
        time.sleep(0.01)
    study = open_study(url, "search", settings, identity={"a": 1})
    others = open_study(url, "search baselines", settings, identity={"a": 1})
    enqueue(study, "guide", params=GUIDE)
    enqueue(others, "uniform", overrides={"curriculum.enabled": False})

    def objective(trial):
        with (folder / "ran.jsonl").open("a") as file:
            line = [others_name[0], trial.number, trial.baseline, trial.params]
            file.write(json.dumps(line) + "\n")
        if trial.number == int(dies_at):
            os._exit(9)
        time.sleep(float(seconds))
        return value({**GUIDE, **trial.params}, 100)

    others_name = ["search"]
    run_trials(study, space, settings, objective, folder / "trials")
    others_name[0] = "baselines"
    run_trials(others, (), replace(settings, num_trials=1), objective, folder / "baselines")


if __name__ == "__main__":
    main(*sys.argv[1:])
