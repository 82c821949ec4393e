"""A worker of a study whose trials cost nothing, run as a process that tests kill.

python -m tests.experiments.tune.worker URL FOLDER '{"num_trials": 16, "seconds": 0.05, ...}'
"""

import json
import os
import sys
import time
from pathlib import Path

from pixelis.config import ModelFileConfig, TuneFileConfig, load_config
from pixelis.experiments.tune import storage
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.study import open_phases
from pixelis.experiments.tune.trials import run_phases

ROOT = Path(__file__).parents[3]
# 100 examples of a training, with an evaluation after every 20.
SETTINGS = {
    "training": {
        "max_steps": 100,
        "eval_steps": 20,
        "batch_size": 1,
        "gradient_accumulation_steps": 1,
        "seed": 3,
    },
    "space": {
        "curriculum.advancement_interval": {"low": 10, "high": 100},
        "curriculum.rollback_threshold": {"low": -0.3, "high": -0.01},
    },
    "baselines": {},
    "prune_after": 0.2,
    "num_trials": 12,
    "study": "search",
}
GUIDE = {"advancement_interval": 60, "rollback_threshold": -0.1}


def build_spec(url, folder, pairs=(), **changed):
    """Build a search with SETTINGS and other settings; of no data."""
    training = SETTINGS["training"] | {"output_dir": str(folder / "tuned")}
    keys = SETTINGS | {"storage": url} | changed
    texts = [("space", "{}")]  # the file's keys go
    texts += [(f"training.{name}", str(value)) for name, value in training.items()]
    texts += [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in keys.items()
        if name != "training"
    ]
    return smoke_spec([*texts, *pairs])


def smoke_spec(pairs):
    """Build the smoke configuration's search with other values of some keys; of no data."""
    config = load_config(TuneFileConfig, ROOT / "configs/smoke/tune.yaml", pairs)
    spec = SearchSpec(config, load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml"))
    spec.__dict__["digest"] = "of no data"
    return spec


def value(params, examples=100):
    """Return a performance that grows towards the guide's values, and with every example."""
    near = 1 - abs(params["curriculum.advancement_interval"] - 60) / 100
    near -= abs(params["curriculum.rollback_threshold"] + 0.1)
    return near * examples / 100


def objective(folder, seconds=0.0, dies_at=None):
    """Return an objective that notes each call in a file, reports and may be pruned or killed."""

    def run(trial):
        with (folder / "ran.jsonl").open("a") as file:
            line = {"phase": trial.phase, "number": trial.number, "baseline": trial.baseline}
            file.write(json.dumps(line) + "\n")
        if trial.number == dies_at:
            os._exit(9)
        params = {f"curriculum.{key}": value for key, value in GUIDE.items()} | trial.params
        for examples in range(20, 101, 20):
            time.sleep(seconds / 5)
            if reason := trial.report(examples, value(params, examples)):
                raise trial.pruned(reason)
        return value(params)

    return run


def main(url, folder, options):
    """Open the studies, then run trials of the baselines and the search until there are enough."""
    options, folder = json.loads(options), Path(folder)
    storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, options.pop("grace", 4)
    call = {key: options.pop(key) for key in ("seconds", "dies_at") if key in options}
    (folder / f"ready-{os.getpid()}").touch()
    go = options.pop("go", None)
    while go is not None and not Path(go).exists():
        time.sleep(0.01)
    studies = open_phases(build_spec(url, folder, **options))
    run_phases(studies.values(), objective(folder, **call))


if __name__ == "__main__":
    main(*sys.argv[1:])
