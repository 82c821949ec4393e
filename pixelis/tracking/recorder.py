"""The recorder of one MLflow run: `pixelis.recorder.Recorder`, and what the CLI adds to it."""

import base64
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run

from pixelis.curriculum.visits import visits
from pixelis.recorder import ADAPTERS, VISIT
from pixelis.tracking.adapters import Origin, model_fields
from pixelis.tracking.datasets import dataset_fields
from pixelis.tracking.delivery import Kind, Record
from pixelis.tracking.outbox import Outbox
from pixelis.tracking.source import without_home
from pixelis.tracking.visits import VISIT_TAG, visit_fields

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Scalar = str | int | float | bool | None

EVENTS_FILE = "curriculum/events.json"
EVENT_SIGNS = {"advance": 1.0, "rollback": -1.0}
EVENT_METRICS = {
    "performance_before": "perf_before",
    "performance_after": "perf_after",
    "performance_drop": "delta",
    "average_performance": "average",
    "rollback_count": "rollback_count",
    "interval": "interval",
}
MAX_PARAM = 6000  # characters that MLflow keeps; it would cut the rest off without a word
MAX_TAG = 8000


class MlflowRecorder:
    """Writes to one run by its id, in batches; what MLflow does not take waits and is sent again.

    Args:
        client: Where to write.
        run: The open run.
        resumed: The run has a past, and metrics that it already holds are skipped.
        spool_dir: Where undelivered records go when the run is closed.
        end: Ends the run with a status; None tells the client to.
    """

    def __init__(
        self,
        client: MlflowClient,
        run: Run,
        *,
        resumed: bool = False,
        spool_dir: Path = Path(),
        end: Callable[[str], None] | None = None,
    ) -> None:
        """Start with what the run holds."""
        self.client = client
        self.run_id: str = run.info.run_id
        self.run_name: str = run.info.run_name
        self.experiment_id: str = run.info.experiment_id
        self.resumed = resumed
        self.spool_dir = spool_dir
        self._end = end or (lambda status: client.set_terminated(self.run_id, status))
        self._outbox = Outbox(client, self.run_id, resumed=resumed)
        self._params = set(run.data.params)
        self._newest_steps: dict[str, int] = {}
        self._events: list[dict[str, Any]] = []
        self._events_changed = False
        self._visits: dict[int, dict[str, Any]] = {}
        self._datasets: dict[str, str] = {}
        self.origin: Origin | None = None  # of the run's adapters

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record finite numbers at a step; a key takes each step once, in growing order."""
        now = int(time.time() * 1000)
        records = []
        for key, value in values.items():
            if not math.isfinite(value):
                self._outbox.warn(
                    f"not finite {key}",
                    f"{key} is {value} at step {step} and is left out",
                )
            elif step > self._newest_steps.get(key, -1):
                self._newest_steps[key] = step
                records.append(Record("metric", key, float(value), step, now))
        self._outbox.add(records)

    def event(self, event: Mapping[str, Any]) -> None:
        """Record a curriculum event: its numbers at its step, and the table of all events."""
        self._events.append(dict(event))
        self._events_changed = True
        self._event_metrics(event)
        self._write_events()
        self._tell_visits()
        self._outbox.deliver()

    def _event_metrics(self, event: Mapping[str, Any]) -> None:
        values = {name: event.get(field) for name, field in EVENT_METRICS.items()}
        values["event"] = EVENT_SIGNS.get(event["kind"])
        values |= {f"mix/{name}": share for name, share in (event.get("mix") or {}).items()}
        known = {f"curriculum/{k}": v for k, v in values.items() if v is not None}
        self.metrics(known, int(event["step"]))

    def _tell_visits(self, status: str = "RUNNING") -> None:
        """Tell of every visit that began or ended since they were told last."""
        now = int(time.time() * 1000)
        for visit in visits(self._events):
            fields = visit_fields(visit, status if visit.end is None else "FINISHED")
            if fields != self._visits.get(visit.index):
                self._visits[visit.index] = fields
                record = Record("visit", fields["tags"][VISIT_TAG], fields, timestamp=now)
                self._outbox.add([record])

    def restore_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Start from the events of the training that is resumed.

        The run has their metrics, unless it is a new one because the store lacks the first.
        """
        self._events = [dict(event) for event in events]
        self._events_changed = True
        if self.resumed:  # what has ended is told already; the open one is RUNNING again
            for visit in visits(self._events):
                if visit.end is not None:
                    self._visits[visit.index] = visit_fields(visit, "FINISHED")
        else:
            for event in self._events:
                self._event_metrics(event)
        self._tell_visits()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or the content of a folder, under `folder` of the run.

        The folder of an adapter that a stage's visit ended with becomes a LoggedModel instead.
        """
        ended = [visit for visit in visits(self._events) if visit.end is not None]
        if folder == f"{ADAPTERS}/{path.name}" and ended and path.name.startswith(f"{VISIT}-"):
            step = int(self._events[-1]["step"])
            keys = [
                key
                for key, newest in self._newest_steps.items()
                if key.startswith("eval/") and newest == step
            ]
            self.model(path, path.name, step, keys, visit=ended[-1].index)
        else:
            self._keep("file", folder, str(path.resolve()))

    def model(
        self,
        folder: Path,
        name: str,
        step: int,
        metrics: Sequence[str],
        *,
        visit: int | None = None,
        results: Mapping[str, float] | None = None,
        register_as: str | None = None,
    ) -> None:
        """Keep an adapter as a LoggedModel; see `adapters.model_fields`."""
        fields = model_fields(
            folder,
            name,
            step,
            metrics,
            visit=visit,
            origin=self.origin,
            events=[event for event in self._events if event["step"] <= step],
            datasets=self._datasets,
            results=results or {},
            register_as=register_as,
        )
        self._keep("model", name, fields)

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a matplotlib figure as a PNG under the artifact path `name`."""
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self._keep("png", name, base64.b64encode(content.getvalue()).decode(), replace=True)

    def text(self, content: str, name: str) -> None:
        """Keep a text under the artifact path `name`, instead of what was there."""
        self._keep("text", name, content, replace=True)

    def json(self, obj: Any, name: str) -> None:
        """Keep an object as JSON under the artifact path `name`, instead of what was there."""
        self.text(json.dumps(obj, indent=2, ensure_ascii=False) + "\n", name)

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep rows as an MLflow table under `name` (.json), instead of what was there."""
        if rows:
            self._keep("table", name, [dict(row) for row in rows])

    def dataset(self, path: Path, *, name: str, context: str, digest: str | None = None) -> None:
        """Record a parquet file as an input of the run.

        Args:
            path: The file; only its footer is read.
            name: The dataset's name in MLflow.
            context: What it is used for: `training`, `validation`, `test`, ...
            digest: A sha256-based digest of the content (36 characters are kept); None computes it.
        """
        fields = dataset_fields(path, context=context, digest=digest)
        self._datasets[name] = fields["digest"]
        self._keep("dataset", name, fields)

    def params(self, values: Mapping[str, Scalar]) -> None:
        """Record parameters as text; those that the run has stay as they are: MLflow fixes them."""
        fresh = {key: str(value) for key, value in values.items() if key not in self._params}
        self._params |= set(fresh)
        self._outbox.add([Record("param", key, _cut(v, MAX_PARAM)) for key, v in fresh.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, over what they were."""
        self._outbox.add([Record("tag", key, _cut(v, MAX_TAG)) for key, v in values.items()])

    def note(self, markdown: str) -> None:
        """Set the description that MLflow shows on top of the run's page."""
        self.tags({"mlflow.note.content": markdown})

    def summary(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record `summary/<key>` scalars for the UI's tables; a step counts once."""
        self.metrics({f"summary/{key}": value for key, value in values.items()}, step)

    def flush(self) -> bool:
        """Send everything now; whether it arrived."""
        return self._outbox.deliver(now=True)

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """Call MLflow for something that is not tried again: None, and a warning, if it fails."""
        try:
            return call()
        # As in the outbox: whatever MLflow's transport or store raises, the training goes on.
        except Exception as error:
            self._outbox.warn(f"failed {what}", f"{what} failed ({type(error).__name__}: {error})")
            return None

    def url_hint(self) -> str:
        """A line for the console: which run this is, and how to look at it."""
        uri = str(self.client.tracking_uri)
        where = f"{_public(uri)}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        look = where if uri.startswith("http") else "make ui"
        return f"MLflow run {self.run_name!r} ({self.run_id}); look at it with: {look}"

    def close(self, status: str) -> None:
        """Deliver what waits and end the run; what MLflow does not take goes to the spool.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        if self._events_changed:
            self._write_events()
        if self._events and self._events[-1]["kind"] != "end":
            self._tell_visits(status)
        self.flush()
        ended = self.attempt("ending the run", lambda: self._end(status) or True)
        last = [] if ended else [Record("status", "status", status)]
        if path := self._outbox.spool(self.spool_dir, last):
            self._outbox.warn("spool", f"MLflow did not take everything; the rest is in {path}")

    def _write_events(self) -> None:
        self.json(self._events, EVENTS_FILE)
        self._events_changed = False

    def _keep(self, kind: Kind, name: str, value: Any, *, replace: bool = False) -> None:
        record = Record(kind, name, value)
        if replace:
            self._outbox.replace(record)
        else:
            self._outbox.add([record])


def _cut(text: str, limit: int) -> str:
    """The text without the home folder, and no longer than MLflow keeps, with a note if cut."""
    text = without_home(text)
    note = f" ... [cut: {len(text)} characters]"
    return text if len(text) <= limit else text[: limit - len(note)] + note


def _public(uri: str) -> str:
    """A tracking URI without user and password."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else uri
