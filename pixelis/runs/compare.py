"""One run of `compare`: compare finished trainings by their records in MLflow alone."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markdown import Markdown

from pixelis.config import CompareConfig, flatten
from pixelis.experiments.compare import ComparedTraining, trainings_markdown, trainings_rows
from pixelis.figures import (
    FigureSettings,
    TrainingHistory,
    build_history,
    compare_timelines,
    titled,
)
from pixelis.runs.live_figures import DRAWN_METRICS, record_chart
from pixelis.tracking import TrainingRun, find_trainings, open_run

ID_LETTERS = 8  # characters of a run's id that are shown


def run_comparison(config: CompareConfig) -> None:
    """Draw the trainings' timelines above each other, with a table, in a run of its own.

    Raises:
        UserError: When there is no training to compare, or MLflow cannot be reached.
    """
    names = None
    if config.runs is not None:
        names = [name.strip() for name in config.runs.split(",") if name.strip()]
    kept = (*DRAWN_METRICS, "curriculum/stage")
    runs = find_trainings(names, experiment=config.experiment, last=config.last, kept=kept)
    trainings = read_trainings(runs)
    with open_run(
        entry_point="compare",
        # Of its own: MLflow's charts of the trainings' experiment would show it beside them.
        experiment=f"{config.experiment}_comparisons",
        run_name=f"{len(trainings)} trainings compared",
        params=flatten(config),
        tags={"pixelis.compares": ",".join(training.run_id for training in trainings)},
        system_metrics=False,
    ) as recorder:
        histories = {training.name: training.history for training in trainings}
        title = f"{len(trainings)} trainings compared, {recorder.date}"
        chart = titled(compare_timelines(histories), title)
        record_chart(recorder, chart, "comparison/timelines")
        recorder.table(trainings_rows(trainings), "comparison/table.json")
        table = trainings_markdown(trainings)
        recorder.text(f"{table}\n", "comparison/table.md")
        recorder.note(trainings_markdown(trainings, links=True))
        Console(width=120).print(Markdown(table))
        print(recorder.url_hint())


def read_trainings(runs: Sequence[TrainingRun]) -> list[ComparedTraining]:
    """Build each training with a unique name: the run's, with its id if several runs share it."""
    num_named = Counter(run.info.name for run in runs)
    return [
        ComparedTraining(
            name=run.info.name
            if num_named[run.info.name] == 1
            else f"{run.info.name} ({run.info.run_id[:ID_LETTERS]})",
            run_id=run.info.run_id,
            link=f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}",
            params=run.info.params,
            tests={str(row["group"]): row for row in run.tests},
            history=read_history(run),
        )
        for run in runs
    ]


def read_history(run: TrainingRun) -> TrainingHistory:
    """Build a training's history, with the thresholds of its decisions."""
    params = run.info.params
    decides = any(event.get("perf_after") is not None for event in run.events)
    decides = decides and params.get("curriculum.rollback_enabled", "").lower() == "true"
    by_delta = decides and params.get("curriculum.decision") != "progress"
    rules = FigureSettings(
        metric=params.get("curriculum.performance_metric", "performance"),
        # Only strategies with stages record the stage at each step.
        has_stages="curriculum/stage" in run.history,
        min_performance=_number(params, "min_performance_for_advance") if decides else None,
        rollback_threshold=_number(params, "rollback_threshold") if by_delta else None,
        restores_weights=params.get("curriculum.rollback_scope") == "data+weights",
    )
    last_step = max(int(event["step"]) for event in run.events)
    max_steps = int(params.get("training.max_steps", last_step))
    return build_history(run.events, run.history, max_steps=max_steps, rules=rules)


def _number(params: Mapping[str, str], key: str) -> float | None:
    text = params.get(f"curriculum.{key}")
    return None if text is None else float(text)
