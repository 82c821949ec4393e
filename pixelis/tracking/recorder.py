"""The recorder of one MLflow run: `pixelis.recorder.Recorder` with the entry points' additions."""

import io
import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image

from pixelis.recorder import ADAPTERS, UNTRUSTED, visit_index
from pixelis.tracking.adapters import Origin, as_example
from pixelis.tracking.datasets import DIGEST_LENGTH, VALIDATION, dataset_fields
from pixelis.tracking.delivery import KILL_TIMEOUT, TIMEOUT, Delivery
from pixelis.tracking.experiments import WORKFLOW
from pixelis.tracking.journal import Past, Record, now, open_journal
from pixelis.tracking.privacy import WarnOnce, cut, first_line, public, without_secrets
from pixelis.tracking.send import Sender
from pixelis.tracking.store import ATTEMPT_SECONDS, call_within
from pixelis.tracking.traces import trace_fields, trace_id_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Scalar = str | int | float | bool | None

LOCAL_SERVER = "http://127.0.0.1:5000"  # of `make ui` and `mlflow ui`
MAX_PARAM, MAX_TAG = 6000, 8000  # characters; MLflow would silently cut off the rest


class MlflowRecorder:
    """The recorder of one run. Only `flush`, `attempt` and `close` wait for MLflow.

    Every record is written to the journal first and sent from there. Several threads may record.

    Args:
        client: Client of the store.
        run: The open run.
        resumed: Whether the run is resumed; metrics that it already holds are not sent again.
        output_dir: Folder of the run's journal; by default the working folder, where the journal is
            removed once it is delivered.
        past: Point in the journal where a resumed training continues.
        shared: Whether several processes write to the run at once.

    Raises:
        UserError: Another process is delivering the records that the resumed run left.
    """

    def __init__(
        self,
        client: MlflowClient,
        run: Run,
        *,
        resumed: bool = False,
        output_dir: Path | None = None,
        past: Past | None = None,
        shared: bool = False,
    ) -> None:
        """Open the journal and continue at its end."""
        self.client = client
        self.run_id: str = run.info.run_id
        self.run_name: str = run.info.run_name
        self.experiment_id: str = run.info.experiment_id
        self.date = date.fromtimestamp(run.info.start_time / 1000).isoformat()  # of the run's start
        self.parent_id: str | None = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        self._keep = output_dir is not None
        folder = output_dir or (Path() if os.access(".", os.W_OK) else Path(tempfile.gettempdir()))
        self.journal = open_journal(folder, self.run_id, shared=shared, past=past)
        self._warnings = WarnOnce()
        has_past = resumed or self.journal.size > 0
        sender = Sender(client, self.journal, has_past=has_past)
        self.answers = sender.answers
        self._delivery = Delivery(self.journal, sender, self._warnings)
        self._params = set(run.data.params)
        self._lock = threading.RLock()  # guards `_params` and `_newest_steps`
        self._newest_steps: dict[str, int] = {}
        self._measured_on: dict[str, str] | None = None
        self.origin: Origin | None = None  # origin of the run's adapters
        for record in filter(None, (record for record, _ in self.journal.read())):
            if record.kind == "param":
                self._params.add(record.name)
            elif record.kind == "metric":
                self._newest_steps[record.name] = record.step

    def next_step(self, key: str) -> int:
        """Return a step after the newest one of a metric in the journal."""
        return self._newest_steps.get(key, -1) + 1

    def position(self) -> int:
        """Flush the journal to disk and return its length in bytes."""
        return self.journal.position()

    def record(self, record: Record, content: bytes | None = None) -> None:
        """Record a record of any kind, with the current time; see `Journal.append`."""
        self._delivery.add(replace(record, timestamp=now()), content)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record finite numbers at a step; a step that is not newer than the last is ignored."""
        time = now()
        with self._lock:
            for key, value in values.items():
                if not math.isfinite(value):
                    message = f"{key} is {value} at step {step} and is left out"
                    self._warnings.warn(f"not finite {key}", message)
                elif step > self._newest_steps.get(key, -1):
                    self._newest_steps[key] = step
                    self._delivery.add(Record("metric", key, float(value), step, time))

    def event(self, event: Mapping[str, Any]) -> None:
        """Record a curriculum event: its numbers at its step, and the table of all events."""
        self.record(Record("event", "event", public(dict(event)), int(event["step"])))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file or a folder's content under `folder`; the original may be deleted afterwards.

        The folder of an adapter from the end of a stage's visit becomes a LoggedModel instead.
        """
        visit = visit_index(path.name) if folder == f"{ADAPTERS}/{path.name}" else None
        if visit is None:
            name = folder if path.is_dir() else f"{folder}/{path.name}".lstrip("/")
            self._keep_path("file", name, path, {})
        else:
            self.model(path, path.name, None, [], visit=visit)

    def model(
        self,
        folder: Path,
        name: str,
        step: int | None,
        metrics: Sequence[str],
        *,
        visit: int | None = None,
        results: Mapping[str, float] | None = None,
        example: tuple[Image.Image, str] | None = None,
        register_as: str | None = None,
    ) -> None:
        """Keep an adapter as a LoggedModel; its folder may be deleted afterwards.

        It was saved after `step`, or at the end of the stage visit with the index `visit`. Its
        measurements are the run's values of `eval/*` and of the keys `metrics` at that step, and
        the `results` of a test; `example` is an image and a question about it, to show how the
        model is called; `register_as` is the name of a registered model.
        """
        evaluated = (key for key in list(self._newest_steps) if key.startswith("eval/"))
        trusted = (key for key in evaluated if not key.startswith(UNTRUSTED))
        fields = {
            "name": name,
            "step": step,
            "metrics": list(dict.fromkeys([*metrics, *trusted])),
            "visit": visit,
            "origin": asdict(self.origin) if self.origin else None,
            "measured_on": dict(self._measured_on or {}),
            "results": dict(results or {}),
            "example": as_example(*example) if example else None,
            "register_as": register_as,
        }
        self._keep_path("model", name, folder, public(fields))

    def _keep_path(self, kind: str, name: str, path: Path, fields: Mapping[str, Any]) -> None:
        """Record a file or folder: its path, which is not made public, and its content."""
        path = path.resolve()
        value = {**fields, "path": str(path)}
        self.record(Record(kind, name, value, files=self.journal.keep(path)))

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a matplotlib figure as a PNG under the artifact path `name`."""
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self.record(Record("file", name), content.getvalue())

    def text(self, content: str, name: str) -> None:
        """Keep a text under the artifact path `name`; it replaces an older one."""
        self.record(Record("file", name), public(content).encode(errors="replace"))

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep rows as an MLflow table under `name` (.json); they replace older ones.

        A PIL image is shown in its cell; equal images are kept once.
        """
        if not rows:
            return
        folder, images = f"table_images/{name.removesuffix('.json')}", dict[str, bytes]()
        cells: dict[int, dict[str, str]] = {}  # id of a picture -> its cell

        def plain(value: Any) -> Any:
            if not isinstance(value, Image.Image):
                return value
            if id(value) in cells:
                return cells[id(value)]
            content = io.BytesIO()
            value.convert("RGB").save(content, "WEBP", quality=80)
            file = f"{sha256(content.getvalue()).hexdigest()[:32]}.webp"
            images[file] = content.getvalue()
            path = f"{folder}/{file}"
            cells[id(value)] = {"type": "image", "filepath": path, "compressed_filepath": path}
            return cells[id(value)]

        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[plain(row.get(column)) for column in columns] for row in rows]
        if images:
            with tempfile.TemporaryDirectory() as target:
                for file, content in images.items():
                    Path(target, file).write_bytes(content)
                self.artifact(Path(target), folder)
        text = json.dumps(public({"columns": columns, "data": data}), default=str)
        self.record(Record("table", name), text.encode())

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
            context: What it is used for; adapters' metrics are linked to the `validation` dataset.
            digest: A sha256-based digest of the content (36 characters are kept); None computes it.
            split: The split that is used; None stands for all rows.
        """
        fields = dataset_fields(path, context=context, digest=digest, split=split)
        if context == VALIDATION:
            self._measured_on = {"name": name, "digest": fields["digest"]}
        self.record(Record("dataset", name, public(fields)))

    def params(self, values: Mapping[str, Scalar]) -> None:
        """Record parameters in YAML's words; MLflow does not allow changing those that it has."""
        with self._lock:
            fresh = {key: _text(value) for key, value in values.items() if key not in self._params}
            self._params |= set(fresh)
        for key, value in fresh.items():
            self.record(Record("param", key, cut(value, MAX_PARAM)))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; new values replace older ones."""
        self.run_name = values.get("mlflow.runName", self.run_name)
        for key, value in values.items():
            self.record(Record("tag", key, cut(value, MAX_TAG)))

    def note(self, markdown: str) -> None:
        """Set the description that MLflow shows on top of the run's page."""
        self.tags({"mlflow.note.content": markdown})

    def summary(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record `summary/<key>` for the UI's tables; a second value at a step is ignored."""
        self.metrics({f"summary/{k}": value for k, value in values.items()}, step)

    def flush(self, timeout: float = TIMEOUT) -> bool:
        """Wait until everything is delivered; return False at once while MLflow is away."""
        return self._delivery.flush(timeout)

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """Call MLflow without retrying; if the call fails, log a warning and return None."""
        try:
            return call_within(ATTEMPT_SECONDS, call)
        # Whatever MLflow's transport or store raises, the training goes on.
        except Exception as error:
            why = f"{what} failed ({type(error).__name__}: {first_line(error)})"
            self.warn(f"failed {what}", why)
            return None

    @property
    def page(self) -> str:
        """The address of the run's page, within MLflow's pages."""
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def url_hint(self) -> str:
        """Return a line for the console with the run's name, id and address."""
        uri = without_secrets(str(self.client.tracking_uri))
        is_server = uri.startswith("http")
        address = f"{uri if is_server else LOCAL_SERVER}/{self.page}?{WORKFLOW}"
        look = address if is_server else f"make ui, then {address}"
        return f"MLflow run {self.run_name!r} ({self.run_id}); look at it with: {look}"

    def close(self, status: str, error: str | None = None) -> None:
        """Send the remaining records and end the run; undelivered ones stay in the journal.

        Args:
            status: FINISHED, FAILED or KILLED.
            error: The error that ended the run, in one line.
        """
        value = {"status": status, "error": error and cut(error, MAX_TAG)}
        self.record(Record("end", "status", value))
        timeout = KILL_TIMEOUT if status == "KILLED" else TIMEOUT
        if path := self._delivery.close(timeout, keep=self._keep):
            self._warnings.warn(
                "undelivered",
                f"MLflow did not take everything; the rest is in {path}; when it is back: "
                f"python -m pixelis.cli.sync {path.parent}",
            )

    def warn(self, kind: str, message: str) -> None:
        """Log a warning, once per kind."""
        self._warnings.warn(kind, message)


def _text(value: Scalar) -> str:
    """Return a setting as YAML and the command line write it: `true`, `null`, `0.1`."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def log_adapter(
    recorder: MlflowRecorder,
    folder: Path,
    name: str,
    step: int,
    metrics: Mapping[str, float],
    *,
    register_as: str | None = None,
) -> None:
    """Keep an adapter as files of the run, `adapters/<name>`, and as a LoggedModel.

    Logging it again under the same name and step, after a resume, makes no second model. `metrics`
    are its measurements at that step, under their names on the run. With `register_as`, the name of
    a registered model, the adapter becomes its version `candidate`.
    """
    recorder.artifact(folder, f"{ADAPTERS}/{name}")
    recorder.metrics(metrics, step)
    recorder.model(folder, name, step, list(metrics), register_as=register_as)


def log_questions(
    recorder: MlflowRecorder, file: Path, *, name: str, digest: str, num_rows: int
) -> None:
    """Record a file or folder of `num_rows` test questions, of any layout, as an input of the run.

    `name` and `digest` (SHA-256 of the questions) are those of the MLflow dataset.
    """
    fields = {
        "digest": digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": str(file)}),
        "profile": json.dumps({"num_rows": num_rows}),
        "context": "test",
    }
    recorder.record(Record("dataset", name, public(fields)))


def log_trace(recorder: MlflowRecorder, key: str, **fields: Any) -> None:
    """Keep a rollout as a trace of the run, once per key; see `traces.trace_fields`."""
    trace_id = trace_id_of(recorder.run_id, key)
    content = json.dumps(trace_fields(trace_id, **fields), default=str).encode()
    recorder.record(Record("trace", trace_id), content)
