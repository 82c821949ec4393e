"""The search over a curriculum's settings: what is searched, one study, its pruning, its verdict.

The only package that imports optuna. It knows no MLflow and trains nothing itself: a study is given
a function that does.
"""

from pixelis.experiments.tune.charts import draw_page, draw_pictures, importances
from pixelis.experiments.tune.parts import (
    BASELINES,
    RUN_ID,
    TRIALS,
    Part,
    enqueue_final,
    final_key,
    open_parts,
    value_of,
)
from pixelis.experiments.tune.plan import Plan, Training
from pixelis.experiments.tune.pruning import Replay, explain, replay, saved_share
from pixelis.experiments.tune.settings import Settings
from pixelis.experiments.tune.space import Parameter, build_space, changed
from pixelis.experiments.tune.storage import check_storage, open_study, storage_errors
from pixelis.experiments.tune.study import (
    BASELINE,
    ERROR,
    REASON,
    Trial,
    best_trial,
    enqueue,
    error_of,
    finished_trials,
    first_number,
    is_running,
)
from pixelis.experiments.tune.verdict import Verdict, judge
from pixelis.experiments.tune.workers import POLL_SECONDS, TrialStopped, run_trials

__all__ = [
    "BASELINE",
    "BASELINES",
    "ERROR",
    "POLL_SECONDS",
    "Parameter",
    "Part",
    "Plan",
    "REASON",
    "RUN_ID",
    "Replay",
    "Settings",
    "TRIALS",
    "Training",
    "Trial",
    "TrialStopped",
    "Verdict",
    "best_trial",
    "build_space",
    "changed",
    "check_storage",
    "draw_page",
    "draw_pictures",
    "enqueue",
    "enqueue_final",
    "error_of",
    "explain",
    "final_key",
    "finished_trials",
    "first_number",
    "importances",
    "is_running",
    "judge",
    "open_parts",
    "open_study",
    "replay",
    "run_trials",
    "saved_share",
    "storage_errors",
    "value_of",
]
