"""Trainings of the store as they are compared: what they recorded, and nothing of today's code."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pixelis.experiments.compare.outcome import Training
from pixelis.figures import FigureSettings, TrainingHistory, build_history
from pixelis.tracking import TrainingRun

SHORT = 8  # letters of an id


def read_trainings(runs: Sequence[TrainingRun]) -> list[Training]:
    """Each with a name of its own: the run's, and the id where several have the same."""
    named = Counter(run.info.name for run in runs)
    return [
        Training(
            name=run.info.name
            if named[run.info.name] == 1
            else f"{run.info.name} ({run.info.run_id[:SHORT]})",
            run_id=run.info.run_id,
            link=f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}",
            params=run.info.params,
            metrics=run.metrics,
            course=read_course(run),
        )
        for run in runs
    ]


def read_course(run: TrainingRun) -> TrainingHistory:
    """The course of a training, with the thresholds that its decisions were made by."""
    params = run.info.params
    decides = any(event.get("perf_after") is not None for event in run.events)
    decides = decides and params.get("curriculum.rollback_enabled", "").lower() == "true"
    rules = FigureSettings(
        metric=params.get("curriculum.performance_metric", "performance"),
        # Only strategies with stages tell the stage at each step.
        has_stages="curriculum/stage" in run.history,
        min_performance=_number(params, "min_performance_for_advance") if decides else None,
        rollback_threshold=_number(params, "rollback_threshold") if decides else None,
        restores_weights=params.get("curriculum.rollback_scope") == "data+weights",
    )
    reached = max(int(event["step"]) for event in run.events)
    max_steps = int(params.get("training.max_steps", reached))
    return build_history(run.events, run.history, max_steps=max_steps, rules=rules)


def _number(params: Mapping[str, str], key: str) -> float | None:
    text = params.get(f"curriculum.{key}")
    return None if text is None else float(text)
