"""An adapter as MLflow keeps it: files of the run, and a LoggedModel with the metrics it earned."""

from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

from pixelis.tracking.recorder import MlflowRecorder, Scalar


def log_adapter(
    recorder: MlflowRecorder,
    folder: Path,
    name: str,
    step: int,
    metrics: Mapping[str, float],
    params: Mapping[str, Scalar],
) -> str | None:
    """Keep an adapter under `adapters/<name>` of the run and as a LoggedModel linked to the run.

    Args:
        recorder: The run's recorder.
        folder: The adapter in PEFT's layout.
        name: `final`, `best`, or a stage visit's name.
        step: The optimiser step that it was saved after.
        metrics: Its measurements at that step, under their names on the run.
        params: What it was made with.

    Returns:
        The LoggedModel's id, or None when MLflow did not take it (the training goes on).
    """
    recorder.artifact(folder, f"adapters/{name}")
    recorder.metrics(metrics, step)
    delivered = recorder.flush()
    if not delivered:
        return None
    return recorder.attempt(
        f"logging the adapter {name} as a model",
        lambda: _log_model(recorder, folder, name, step, metrics, params),
    )


def _log_model(
    recorder: MlflowRecorder,
    folder: Path,
    name: str,
    step: int,
    metrics: Mapping[str, float],
    params: Mapping[str, Scalar],
) -> str:
    client = recorder.client
    tags = {"pixelis.adapter": name, "pixelis.step": str(step)}
    if recorder.resumed and (known := _find_model(recorder, tags)):
        return known
    model = client.create_logged_model(
        recorder.experiment_id,
        name="adapter-" + "".join(c if c.isalnum() or c in "-_ " else "-" for c in name),
        source_run_id=recorder.run_id,
        tags=tags,
        params={key: str(value) for key, value in params.items()},
        model_type="lora-adapter",
    )
    model_id = str(model.model_id)
    try:
        client.log_model_artifacts(model_id, str(folder))
    except Exception:
        client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(recorder.run_id, [LoggedModelOutput(model_id, step=step)])
    # The run has these points already. Sent again exactly as they are, with the model's id, MLflow
    # adds them to the model and, as duplicates, not to the run.
    points = []
    for key in metrics:
        history = client.get_metric_history(recorder.run_id, key)
        at_step = next((m for m in history if m.step == step), None)
        if at_step is not None:
            points.append(Metric(key, at_step.value, at_step.timestamp, step, model_id=model_id))
    if points:
        client.log_batch(recorder.run_id, metrics=points)
    return model_id


def _find_model(recorder: MlflowRecorder, tags: Mapping[str, str]) -> str | None:
    """The whole model that the run logged before it was stopped and taken up again."""
    models = recorder.client.search_logged_models(
        [recorder.experiment_id], filter_string=f"source_run_id = '{recorder.run_id}'"
    )
    whole = (m for m in models if m.status == LoggedModelStatus.READY)
    return next((str(m.model_id) for m in whole if tags.items() <= m.tags.items()), None)
