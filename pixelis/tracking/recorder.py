"""The recorder of one MLflow run: `pixelis.recorder.Recorder`, and what the CLI adds to it."""

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pixelis.curriculum.visits import visits
from pixelis.errors import UserError
from pixelis.recorder import ADAPTERS, visit_index
from pixelis.tracking.adapters import Origin, model_fields
from pixelis.tracking.console import first_line
from pixelis.tracking.datasets import VALIDATION, dataset_fields
from pixelis.tracking.delivery import Record
from pixelis.tracking.events import VisitLog, event_metrics
from pixelis.tracking.outbox import Outbox
from pixelis.tracking.patience import ATTEMPT_SECONDS, KILL_PATIENCE, PATIENCE, call_within
from pixelis.tracking.source import cut, public, without_secrets
from pixelis.tracking.spool import Spool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Scalar = str | int | float | bool | None

EVENTS_FILE = "curriculum/events.json"
MAX_PARAM, MAX_TAG = 6000, 8000  # characters that MLflow keeps; it would cut the rest off silently
SYNC_SECONDS = 30.0  # that a resumed run waits for a `sync` of its records


class MlflowRecorder:
    """Writes to one run by its id. No call waits for MLflow, except `flush`, `attempt` and `close`.

    Calls may come from several threads. What MLflow does not take waits on disk and is sent again.

    Args:
        client: Where to write.
        run: The open run.
        resumed: The run has a past: metrics that it already holds are skipped, and what an earlier
            process left in `spool_dir` goes first.
        spool_dir: Where records wait while MLflow is away.

    Raises:
        UserError: Another process is delivering the records that the resumed run left.
    """

    def __init__(
        self,
        client: MlflowClient,
        run: Run,
        *,
        resumed: bool = False,
        spool_dir: Path = Path(),
    ) -> None:
        """Start with what the run holds."""
        self.client = client
        self.run_id: str = run.info.run_id
        self.run_name: str = run.info.run_name
        self.experiment_id: str = run.info.experiment_id
        self.parent_id: str | None = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        self.resumed, self.spool_dir = resumed, spool_dir
        self._outbox = Outbox(client, self.run_id, Spool(spool_dir, self.run_id), resumed=resumed)
        self._params = set(run.data.params)
        self._lock = threading.RLock()  # around what follows
        self._newest_steps: dict[str, int] = {}
        self._events: list[dict[str, Any]] = []
        self._events_changed = False
        self._visits = VisitLog()
        self._measured_on: dict[str, str] | None = None
        self.origin: Origin | None = None  # of the run's adapters
        self._left: dict[str, int] = {}  # the newest step of each metric that was taken up
        if resumed:
            self._take_up(self._outbox.spool)

    def _take_up(self, spool: Spool) -> None:
        if not spool.path.is_file():
            return
        if not spool.acquire(SYNC_SECONDS):
            raise UserError(
                f"the records in {spool.path} are being delivered by another process; "
                "go on when it is done"
            )
        left = spool.load_unended()
        self._params |= {record.name for record in left if record.kind == "param"}
        self._left = {record.name: record.step for record in left if record.kind == "metric"}
        self._outbox.take_up(left)

    def next_step(self, key: str) -> int:
        """A step after all that the run holds of a metric, or that still waits for it."""
        steps = [self._left.get(key, -1)]
        if self.resumed:
            history = self.attempt(
                f"reading {key}", lambda: self.client.get_metric_history(self.run_id, key)
            )
            steps += [metric.step for metric in history or ()]
        return max(steps) + 1

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record finite numbers at a step; a key takes each step once, in growing order."""
        now = _now()
        records = []
        with self._lock:
            for key, value in values.items():
                if not math.isfinite(value):
                    self.warn(
                        f"not finite {key}", f"{key} is {value} at step {step} and is left out"
                    )
                elif step > self._newest_steps.get(key, -1):
                    self._newest_steps[key] = step
                    records.append(Record("metric", key, float(value), step, now))
            self._outbox.add(records)

    def event(self, event: Mapping[str, Any]) -> None:
        """Record a curriculum event: its numbers at its step, and the table of all events."""
        with self._lock:
            self._events.append(dict(event))
            self.metrics(event_metrics(event), int(event["step"]))
            self._write_events()
            self._tell_visits()
        self._outbox.wake()

    def _tell_visits(self, status: str = "RUNNING") -> None:
        self._outbox.add(list(self._visits.changed(self._events, _now(), status)))

    def restore_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Start from the events of the training that is resumed; all are told again.

        What the run has of them stays as it is; a new run, or what died undelivered, has nothing.
        """
        self._events = [dict(event) for event in events]
        self._events_changed = True
        for event in self._events:
            self.metrics(event_metrics(event), int(event["step"]))
        self._tell_visits()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or the content of a folder, under `folder` of the run; it may vanish now.

        The folder of an adapter that a stage's visit ended with becomes a LoggedModel instead.
        """
        visit = visit_index(path.name) if folder == f"{ADAPTERS}/{path.name}" else None
        if visit is not None and self._events:
            step = visits(self._events)[visit - 1].end or int(self._events[-1]["step"])
            keys = [key for key in self._newest_steps if key.startswith("eval/")]
            self.model(path, path.name, step, keys, visit=visit)
        else:
            held, files = self._outbox.spool.hold(path.resolve())
            self._outbox.add([Record("file", folder, str(held), files=files)])

    def model(
        self, folder: Path, name: str, step: int, metrics: Sequence[str], **more: Any
    ) -> None:
        """Keep an adapter as a LoggedModel; see `adapters.model_fields`."""
        held, files = self._outbox.spool.hold(folder.resolve())
        fields = model_fields(
            held,
            name,
            step,
            metrics,
            origin=self.origin,
            events=[event for event in self._events if event["step"] <= step],
            measured_on=self._measured_on,
            **more,
        )
        # The folder is opened later: a path that others may read, `~/...`, would not be there.
        told = public(fields) | {"folder": str(held)}
        self._outbox.add([Record("model", name, told, files=files)])

    def tell(self, record: Record) -> None:
        """Queue a record of any kind, with the time."""
        self._outbox.add([replace(record, timestamp=_now())])

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a matplotlib figure as a PNG under the artifact path `name`."""
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self._outbox.replace(Record("png", name, base64.b64encode(content.getvalue()).decode()))

    def text(self, content: str, name: str) -> None:
        """Keep a text under the artifact path `name`, instead of what was there."""
        self._outbox.replace(Record("text", name, public(content)))

    def json(self, obj: Any, name: str) -> None:
        """Keep an object as JSON under `name`, instead of what was there."""
        self.text(json.dumps(obj, indent=2, ensure_ascii=False) + "\n", name)

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep rows as an MLflow table under `name` (.json), instead of what was there."""
        if rows:
            self._outbox.replace(Record("table", name, public([dict(row) for row in rows])))

    def dataset(
        self,
        path: Path,
        *,
        name: str,
        context: str,
        digest: str | None = None,
        split: str | None = None,
    ) -> None:
        """Record a parquet file, or a folder of them, as an input of the run.

        Args:
            path: The file or folder; only footers, and the column `split`, are read.
            name: The dataset's name in MLflow.
            context: What it is used for; adapters' metrics are linked to the one for `validation`.
            digest: A sha256-based digest of the content (36 characters are kept); None computes it.
            split: That is meant; None: all rows.
        """
        fields = dataset_fields(path, context=context, digest=digest, split=split)
        if context == VALIDATION:
            self._measured_on = {"name": name, "digest": fields["digest"]}
        self._outbox.add([Record("dataset", name, public(fields))])

    def params(self, values: Mapping[str, Scalar]) -> None:
        """Record parameters as text; those that the run has stay as they are: MLflow fixes them."""
        with self._lock:
            fresh = {key: str(value) for key, value in values.items() if key not in self._params}
            self._params |= set(fresh)
        self._outbox.add([Record("param", key, cut(v, MAX_PARAM)) for key, v in fresh.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, over what they were."""
        self.run_name = values.get("mlflow.runName", self.run_name)
        self._outbox.add([Record("tag", key, cut(v, MAX_TAG)) for key, v in values.items()])

    def note(self, markdown: str) -> None:
        """Set the description that MLflow shows on top of the run's page."""
        self.tags({"mlflow.note.content": markdown})

    def summary(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record `summary/<key>` for the UI's tables; a step counts once."""
        self.metrics({f"summary/{k}": value for k, value in values.items()}, step)

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until everything has arrived; False at once while MLflow is away."""
        return self._outbox.flush(patience)

    def secure(self) -> bool:
        """Have all that was recorded in MLflow, or on this disk; False where neither takes it."""
        return self._outbox.flush() or self._outbox.write_down()

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """Call MLflow for something that is not tried again: None, and a warning, if it fails."""
        try:
            return call_within(ATTEMPT_SECONDS, call)
        # As in the outbox: whatever MLflow's transport or store raises, the training goes on.
        except Exception as error:
            why = f"{what} failed ({type(error).__name__}: {first_line(error)})"
            self.warn(f"failed {what}", why)
            return None

    def url_hint(self) -> str:
        """A line for the console: which run this is, and how to look at it."""
        uri, place = str(self.client.tracking_uri), f"{self.experiment_id}/runs/{self.run_id}"
        address = f"{without_secrets(uri)}/#/experiments/{place}"
        look = address if uri.startswith("http") else "make ui"
        return f"MLflow run {self.run_name!r} ({self.run_id}); look at it with: {look}"

    def close(self, status: str) -> None:
        """Deliver what waits and end the run; what MLflow does not take stays in the spool.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        with self._lock:
            if self._events_changed:
                self._write_events()
            if self._events and self._events[-1]["kind"] != "end":
                self._tell_visits(status)
        self._outbox.add([Record("status", "status", status, timestamp=_now())])
        if path := self._outbox.close(KILL_PATIENCE if status == "KILLED" else PATIENCE):
            self.warn(
                "undelivered",
                f"MLflow did not take everything; the rest is in {path}; when it is back: "
                f"python -m pixelis.cli.sync {path.parent}",
            )

    def _write_events(self) -> None:
        self.json(self._events, EVENTS_FILE)
        self._events_changed = False

    def warn(self, kind: str, message: str) -> None:
        """Say a warning, once a kind."""
        self._outbox.console.warn(kind, message)


def _now() -> int:
    return int(time.time() * 1000)
