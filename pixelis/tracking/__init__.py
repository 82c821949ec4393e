"""MLflow tracking: the only part of pixelis that imports mlflow.

`open_run` opens or resumes a run and yields its recorder; `find_run` and `resolve_adapter` find
earlier runs and their adapters. Importing this package imports mlflow, which takes about two
seconds, so the CLI imports it inside `main`.
"""

from mlflow.entities.model_registry import ModelVersion

from pixelis.tracking.adapters import Origin, event_rows
from pixelis.tracking.journal import Journal, Past
from pixelis.tracking.lookup import (
    DATA_TAG,
    TrainingRun,
    data_tag,
    find_adapter,
    find_data_run,
    find_run,
    find_trainings,
    resolve_adapter,
)
from pixelis.tracking.measured import (
    curriculum_of,
    final_model,
    link_measured,
    measured_model,
)
from pixelis.tracking.recorder import (
    MlflowRecorder,
    Scalar,
    log_adapter,
    log_questions,
    log_trace,
)
from pixelis.tracking.registry import (
    CHAMPION,
    find_champion,
    find_version,
    set_champion,
)
from pixelis.tracking.runs import (
    name_opened_run,
    nested_environment,
    open_run,
    without_environment,
)
from pixelis.tracking.sync import deliver_journals, end_killed_runs, find_journals

__all__ = [
    "CHAMPION",
    "DATA_TAG",
    "Journal",
    "MlflowRecorder",
    "ModelVersion",
    "Origin",
    "Past",
    "Scalar",
    "TrainingRun",
    "curriculum_of",
    "data_tag",
    "deliver_journals",
    "end_killed_runs",
    "event_rows",
    "final_model",
    "find_champion",
    "find_data_run",
    "find_adapter",
    "find_run",
    "find_journals",
    "find_trainings",
    "find_version",
    "link_measured",
    "log_adapter",
    "log_questions",
    "log_trace",
    "measured_model",
    "name_opened_run",
    "nested_environment",
    "open_run",
    "resolve_adapter",
    "set_champion",
    "without_environment",
]
