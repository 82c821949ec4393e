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

IMAGE = "$image"  # in inputs and outputs: refers to the image with this key
MAX_SIDE = 768  # of an image, in pixels; larger ones are reduced
MAX_PREVIEW = 900
MIN_NS = 1_000  # shortest span, so that the order of spans is visible


def trace_id_of(run_id: str, key: str) -> str:
    """Return the id of the trace with a key in a run."""
    return f"tr-{hashlib.sha256(f'{run_id} {key}'.encode()).digest()[:16].hex()}"


def trace_fields(
    *,
    name: str,
    spans: Sequence[Mapping[str, Any]],
    is_right: bool,
    why: str,
    answered: bool,
    tags: Mapping[str, str],
    model: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the fields of `send_trace`, as plain JSON.

    Args:
        name: name of the trace.
        spans: spans in order, the first one the parent of all others: `name`, `type`, `inputs`,
            `outputs`, and optionally `seconds` (wall time) and `error`. PIL images anywhere in
            inputs and outputs are shown there.
        is_right: the verdict, kept as the assessment `right`.
        why: the rationale of the verdict.
        answered: whether the rollout ended with an answer; otherwise its state is ERROR.
        tags: tags to filter by.
        model: reference to the model (`adapters.find_measured`), or None.
    """
    images: dict[str, str] = {}
    plain = [_plain(public(dict(span)), images) for span in spans]
    texts = {"name": name, "why": why, "tags": dict(tags)}
    return {
        **public(texts),
        "spans": plain,
        "images": images,
        "right": is_right,
        "answered": answered,
        "model": model,
    }


def _plain(value: Any, images: dict[str, str]) -> Any:
    """Return the value with its images replaced by references and added to `images`."""
    if isinstance(value, Image.Image):
        content = _encode(value)
        key = hashlib.sha256(content).hexdigest()[:32]
        images[key] = base64.b64encode(content).decode()
        return {IMAGE: key}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, images) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, images) for inner in value]
    return value


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
    shown = {
        key: Attachment(content_type="image/png", content_bytes=base64.b64decode(content))
        for key, content in fields["images"].items()
    }
    for key, attachment in shown.items():
        attachment._id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{trace_id} {key}"))
    references = {key: attachment.ref(trace_id) for key, attachment in shown.items()}
    spans = [_fill(span, references) for span in fields["spans"]]
    lengths = [max(MIN_NS, round(1e9 * span.get("seconds", 0))) for span in spans[1:]]
    # The spans follow each other; the parent lasts as long as all of them together.
    begins = [0, *(sum(lengths[:i]) for i in range(len(lengths)))]
    lengths.insert(0, max(MIN_NS, sum(lengths)))
    began = timestamp * 1_000_000 - lengths[0]
    model = find_measured(client, run, fields["model"])
    metadata = {TraceMetadataKey.SOURCE_RUN: run_id}
    metadata |= {TraceMetadataKey.MODEL_ID: str(model.model_id)} if model else {}
    metadata |= {TraceMetadataKey.INPUTS: _json(spans[0]["inputs"])[:MAX_PREVIEW]}
    metadata |= {TraceMetadataKey.OUTPUTS: _json(spans[0]["outputs"])[:MAX_PREVIEW]}
    info = TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(run.info.experiment_id),
        request_time=began // 1_000_000,
        execution_duration=max(1, round(lengths[0] / 1e6)),
        state=TraceState.OK if fields["answered"] else TraceState.ERROR,
        request_preview=metadata[TraceMetadataKey.INPUTS],
        response_preview=metadata[TraceMetadataKey.OUTPUTS],
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
    for attachment in shown.values():
        folder.upload_attachment(attachment.id, attachment.content_bytes)


def _fill(value: Any, references: Mapping[str, str]) -> Any:
    """Return the value with MLflow's references in the place of its image keys."""
    if isinstance(value, Mapping):
        if value.keys() == {IMAGE}:
            return references.get(value[IMAGE], "")
        return {name: _fill(inner, references) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, references) for inner in value]
    return value


def _feedback(fields: Mapping[str, Any], trace_id: str, timestamp: int) -> Feedback:
    feedback = Feedback(
        name="right",
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
