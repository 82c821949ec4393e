"""MLflow tracking: the only part of pixelis that imports mlflow.

`open_run` opens (or goes on in) a run and hands out the recorder; `find_run` and `resolve_adapter`
read back what earlier runs left. Importing this costs what importing mlflow costs (about two
seconds), so the CLI does it inside `main`.
"""

from pixelis.tracking.adapters import log_adapter
from pixelis.tracking.lookup import RunInfo, find_run, resolve_adapter
from pixelis.tracking.recorder import MlflowRecorder
from pixelis.tracking.runs import open_run

__all__ = ["MlflowRecorder", "RunInfo", "find_run", "log_adapter", "open_run", "resolve_adapter"]
