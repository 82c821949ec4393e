"""Command lines of trainings of seconds."""

import json

from tests.conftest import SETTINGS as TRAINING_SETTINGS
from tests.forking import ROOT

# The smoke configuration, smaller still.
SETTINGS = TRAINING_SETTINGS | {
    "data.path": "data",
    "evaluation.enabled": "true",
    "evaluation.samples_per_difficulty": 1,
    "evaluation.max_operations": 2,
    "evaluation.num_traces": 1,
    "evaluation.num_reported": 1,
}


def words(settings):
    """A command line of settings."""
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def sft_arguments(output_dir, **changed):
    """The command line of an sft; `training__seed=3` sets `training.seed`."""
    settings = SETTINGS | {"training.output_dir": output_dir}
    settings |= {key.replace("__", "."): value for key, value in changed.items()}
    return [
        *("--config", str(ROOT / "configs/smoke/training_params.yaml")),
        *("--model", str(ROOT / "configs/model_arch.yaml")),
        *words(settings),
    ]


SPACE = {"curriculum": {"advancement_interval": {"low": 2, "high": 4}}}
BASELINES = {"guide": {"curriculum": {"advancement_interval": 2}}}


def tune_arguments(output_dir, *, num_workers, num_trials=3, final_seeds=1, **changed):
    """The command line of a search: trials, the guide's settings among them, and a verdict."""
    left_out = {"training.learning_rate", "evaluation.samples_per_difficulty"}
    settings = {key: value for key, value in SETTINGS.items() if key not in left_out}
    settings |= {
        "exp_name": "tune",
        "storage": "sqlite:///optuna.db",
        "best_config": "best.yaml",
        "num_trials": num_trials,
        "final_seeds": final_seeds,
        "num_workers": num_workers,
        "space": json.dumps(SPACE),
        "baselines": json.dumps(BASELINES),
        "training.output_dir": output_dir,
        "evaluation.enabled": "false",
    }
    settings |= {key.replace("__", "."): value for key, value in changed.items()}
    return [
        *("--config", str(ROOT / "configs/smoke/tune.yaml")),
        *("--model", str(ROOT / "configs/model_arch.yaml")),
        *words(settings),
    ]
