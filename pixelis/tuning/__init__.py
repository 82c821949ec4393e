"""The search over a curriculum's settings: what is searched, one study, its pruning, its verdict.

The only package that imports optuna. It knows no MLflow and trains nothing itself: a study is given
a function that does.
"""

from pixelis.tuning.pruning import Replay, explain, replay, saved_share
from pixelis.tuning.settings import PRUNERS, SAMPLERS, Settings
from pixelis.tuning.space import Parameter, build_space, changed
from pixelis.tuning.storage import open_study
from pixelis.tuning.study import (
    BASELINE,
    ERROR,
    REASON,
    Trial,
    TrialStopped,
    best_trial,
    enqueue,
    finished_trials,
    run_trials,
)
from pixelis.tuning.verdict import Verdict, judge

__all__ = [
    "BASELINE",
    "ERROR",
    "PRUNERS",
    "REASON",
    "SAMPLERS",
    "Parameter",
    "Replay",
    "Settings",
    "Trial",
    "TrialStopped",
    "Verdict",
    "best_trial",
    "build_space",
    "changed",
    "enqueue",
    "explain",
    "finished_trials",
    "judge",
    "open_study",
    "replay",
    "run_trials",
    "saved_share",
]
