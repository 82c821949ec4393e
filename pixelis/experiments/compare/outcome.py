"""What came of one training, in the words that trainings are compared in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelis.figures import TrainingHistory

ALL = "all"
# Where work goes, and how it is taken up again, says nothing about what is trained.
LEFT_OUT = ("training.output_dir", "data.path", "data.prep", "exp_name", "resume")
SECTIONS = ("curriculum.", "training.", "model.", "data.")


@dataclass(frozen=True)
class Training:
    """A training as it is compared.

    Attributes:
        name: How it is called, different for each.
        run_id: Of its run in MLflow.
        link: To that run.
        params: Its settings under dotted keys, as text.
        metrics: The newest value of each metric.
        course: How it went.
    """

    name: str
    run_id: str
    link: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    course: TrainingHistory


def compute_outcome(training: Training) -> dict[str, Any]:
    """Fact -> value; facts that a training does not have are left out."""
    course = training.course
    events = course.events
    facts: dict[str, Any] = {}
    if course.rules.has_stages and events:
        facts["stage reached"] = events[-1]["to_stage"]
        entered = {e["to_stage"]: int(e["step"]) for e in events if e["kind"] == "advance"}
        facts |= {f"steps to {stage}": step for stage, step in entered.items()}
    back = [event for event in events if event["kind"] == "rollback"]
    facts["rollbacks"] = len(back)
    if back:
        facts["rolled back"] = "; ".join(map(_why, back))
    facts |= _strata(course)
    for group in (*_names(course), ALL):
        accuracy = training.metrics.get(f"test/adapter/{group}/answer_accuracy")
        gain = training.metrics.get(f"test/gain/{group}")
        if accuracy is not None:
            facts[f"test {group}"] = accuracy
        if gain is not None:
            facts[f"test {group}: gain"] = gain
    return facts


def _why(event: Mapping[str, Any]) -> str:
    """A rollback in words."""
    delta = "" if event.get("delta") is None else f" ({event['delta']:+.4f})"
    return f"step {event['step']}: {event.get('reason') or 'no reason given'}{delta}"


def _names(course: TrainingHistory) -> list[str]:
    return list(dict.fromkeys(name for _, values in course.strata for name in values))


def _strata(course: TrainingHistory) -> dict[str, float]:
    """Validation performance by difficulty: the last, and the highest that there was."""
    facts: dict[str, float] = {}
    for kind in ("final", "best"):
        for name in _names(course):
            values = [strata[name] for _, strata in course.strata if name in strata]
            facts[f"{kind} {name}"] = values[-1] if kind == "final" else max(values)
    return facts


def _plain(text: str | None) -> str | None:
    """A value in one form: what `mlflow run -P` recorded is as the user wrote it, and quoted."""
    if text is None:
        return None
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
    if text.lower() in ("true", "false", "null", "none"):
        return {"none": "null"}.get(text.lower(), text.lower())
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def differing_params(trainings: list[Training]) -> dict[str, list[str | None]]:
    """Setting -> its value in each training, where they differ; the curriculum's come first."""
    keys = dict.fromkeys(key for training in trainings for key in sorted(training.params))
    found = {}
    for section in SECTIONS:
        for key in keys:
            values = [_plain(training.params.get(key)) for training in trainings]
            if key.startswith(section) and key not in LEFT_OUT and len(set(values)) > 1:
                found[key] = values
    return found
