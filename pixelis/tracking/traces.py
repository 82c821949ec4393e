"""Rollouts as MLflow traces, with one span per turn and per operation and the images seen in it.

Traces are built from plain JSON and sent like every other record. MLflow's exporter is not used,
because it loses traces while a server is away. Sending a trace again makes no second one: its id is
derived from the run's id and its key.
"""

import base64
import hashlib
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Feedback, Span, TraceInfo, TraceLocation, TraceState
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracing.attachments import Attachment
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey
from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace
from PIL import Image

from pixelis.tracking.adapters import find_measured
from pixelis.tracking.privacy import public

MAX_SIDE = 768  # of an image, in pixels; larger ones are reduced
MAX_PREVIEW = 900
MIN_NS = 1_000  # shortest span, so that the order of spans is visible


def trace_id_of(run_id: str, key: str) -> str:
    """Return the id of the trace with a key in a run."""
    return f"tr-{hashlib.sha256(f'{run_id} {key}'.encode()).digest()[:16].hex()}"


def trace_fields(
    trace_id: str,
    *,
    name: str,
    preview: tuple[str, str],
    spans: Sequence[Mapping[str, Any]],
    assessment: str,
    is_right: bool,
    why: str,
    answered: bool,
    tags: Mapping[str, str],
    model: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the fields of `send_trace`, as plain JSON.

    The spans are in order, the first one the parent of all others: `name`, `type`, `inputs`,
    `outputs`, and optionally `seconds` (wall time) and `error`. PIL images anywhere in inputs and
    outputs are shown there. `preview` is the text of request and response in the list of traces.
    `is_right` and `why` are kept as the assessment of this name; a rollout that ended without an
    answer has the state ERROR; `model` is of `adapters.find_measured`, or None.
    """
    images: dict[str, str] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Image.Image):
            content = _encode(value)
            attachment = Attachment(content_type="image/png", content_bytes=content)
            attachment._id = str(
                uuid.uuid5(uuid.UUID(trace_id[3:]), hashlib.sha1(content).hexdigest())
            )
            images[attachment.id] = base64.b64encode(content).decode()
            return attachment.ref(trace_id)
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value

    return {
        **public({"name": name, "preview": list(preview), "why": why, "tags": dict(tags)}),
        "spans": [plain(public(dict(span))) for span in spans],
        "images": images,
        "assessment": assessment,
        "right": is_right,
        "answered": answered,
        "model": model,
    }


def _encode(image: Image.Image) -> bytes:
    if max(image.size) > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def send_trace(
    client: MlflowClient, run_id: str, trace_id: str, fields: Mapping[str, Any], timestamp: int
) -> None:
    """Send a trace, the result of `trace_fields`; sending it again makes no second one."""
    run = client.get_run(run_id)
    spans = fields["spans"]
    lengths = [max(MIN_NS, round(1e9 * span.get("seconds", 0))) for span in spans[1:]]
    # The spans follow each other; the parent lasts as long as all of them together.
    begins = [0, *(sum(lengths[:i]) for i in range(len(lengths)))]
    lengths.insert(0, max(MIN_NS, sum(lengths)))
    began = timestamp * 1_000_000 - lengths[0]
    model = find_measured(client, run, fields["model"])
    metadata = {TraceMetadataKey.SOURCE_RUN: run_id}
    metadata |= {TraceMetadataKey.MODEL_ID: str(model.model_id)} if model else {}
    request, response = (text[:MAX_PREVIEW] for text in fields["preview"])
    metadata |= {TraceMetadataKey.INPUTS: request, TraceMetadataKey.OUTPUTS: response}
    info = TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(run.info.experiment_id),
        request_time=began // 1_000_000,
        execution_duration=max(1, round(lengths[0] / 1e6)),
        state=TraceState.OK if fields["answered"] else TraceState.ERROR,
        request_preview=request,
        response_preview=response,
        trace_metadata=metadata,
        tags={TraceTagKey.TRACE_NAME: fields["name"], **fields["tags"]},
        assessments=[_feedback(fields, trace_id, timestamp)],
    )
    tracing = TracingClient(client.tracking_uri)
    returned = tracing.start_trace(info)
    made = [
        _span(span, i, trace_id, (began + begins[i], lengths[i])) for i, span in enumerate(spans)
    ]
    tracing.log_spans(run.info.experiment_id, made)
    folder = get_artifact_repository(get_artifact_uri_for_trace(returned))
    for name, content in fields["images"].items():
        folder.upload_attachment(name, base64.b64decode(content))


def _feedback(fields: Mapping[str, Any], trace_id: str, timestamp: int) -> Feedback:
    feedback = Feedback(
        name=fields["assessment"],
        value=fields["right"],
        rationale=fields["why"] or None,
        trace_id=trace_id,
        create_time_ms=timestamp,
        last_update_time_ms=timestamp,
    )
    feedback.assessment_id = f"a-{trace_id.removeprefix('tr-')}"  # the same when sent again
    return feedback


def _span(span: Mapping[str, Any], index: int, trace_id: str, time: tuple[int, int]) -> Span:
    """Build one span from its begin and length in nanoseconds; the first one is the root."""
    begin, num_ns = time
    failed = span.get("error")
    attributes = {
        SpanAttributeKey.REQUEST_ID: trace_id,
        SpanAttributeKey.SPAN_TYPE: span["type"],
        SpanAttributeKey.INPUTS: span["inputs"],
        SpanAttributeKey.OUTPUTS: span["outputs"],
    }
    code = "STATUS_CODE_ERROR" if failed else "STATUS_CODE_OK"
    return Span.from_dict(
        {
            "name": span["name"],
            "trace_id": base64.b64encode(bytes.fromhex(trace_id.removeprefix("tr-"))).decode(),
            "span_id": _span_id(index),
            "parent_span_id": _span_id(0) if index else "",
            "start_time_unix_nano": begin,
            "end_time_unix_nano": begin + num_ns,
            "attributes": {name: _json(value) for name, value in attributes.items()},
            "status": {"code": code, "message": str(failed or "")},
        }
    )


def _span_id(index: int) -> str:
    return base64.b64encode((index + 1).to_bytes(8, "big")).decode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
