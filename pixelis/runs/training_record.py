"""Records of a training in its MLflow run, during the training and at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.curriculum import TRIAL_KINDS, CurriculumConfig
from pixelis.data.example import DIFFICULTIES
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.tables import result_markdown, short_result
from pixelis.runs.evaluation_record import evaluation_links
from pixelis.tracking import MlflowRecorder, event_rows, log_adapter, measured_model
from pixelis.training.checkpoint import FINAL
from pixelis.training.distributed import Stopped
from pixelis.training.sft import TrainingResult

# A training alone does not say whether its curriculum helped.
UNIFORM = (
    "What a uniform mix of equally many tokens gives was not measured here: `pixelis ablate` "
    "trains both on the same data."
)
FIRST_SHOWN, LAST_SHOWN = 10, 40  # events in a run's description, which MLflow bounds

Event = Mapping[str, Any]


@dataclass(frozen=True)
class RunText:
    """What a training's name and description in MLflow say besides its events and results."""

    curriculum: CurriculumConfig
    seed: int
    max_steps: int
    links: str = ""  # to the parent and the data's run, in Markdown
    label: str = ""  # the beginning of the name of a training that is part of a search


def record_result(
    recorder: MlflowRecorder, result: TrainingResult, text: RunText, register: str | None
) -> None:
    """Record statistics, summary and adapters; `register` names the final one's registered model.

    The name and the description are set by `describe_result`.
    """
    events = [event.to_dict() for event in result.events]
    recorder.text(result.statistics, "curriculum/final_statistics.txt")
    _, last = result.evaluations[-1]
    stages = _stages_reached(events, text.curriculum)
    recorder.summary(
        {
            **{f"final/{d}": last[d] for d in DIFFICULTIES if d in last},
            "best/full_mix": result.best["performance"],
            "rollbacks": events[-1]["rollback_count"],
            "bad_steps": result.num_bad_steps,
            **stages,
        },
        text.max_steps,
    )
    if stages:
        recorder.tags({"pixelis.stage_reached": events[-1]["to_stage"]})
    best_step = int(result.best["step"])
    # The first at its step: after a rollback, strata of the restored weights follow at this step.
    best = next(strata for step, strata in result.evaluations if step == best_step)
    for name, folder, step, strata in (
        ("best", result.final_dir.with_name("best"), best_step, best),
        (FINAL, result.final_dir, text.max_steps, last),
    ):
        log_adapter(
            recorder,
            folder,
            name,
            step,
            {f"summary/{name}/{d}": value for d, value in strata.items()},
            register_as=register if name == FINAL else None,
        )


def describe_result(
    recorder: MlflowRecorder,
    result: TrainingResult,
    text: RunText,
    evaluation: EvaluationResult | None = None,
) -> None:
    """Set the name and the description of a finished training, before or after its evaluation."""
    events = [event.to_dict() for event in result.events]
    outcome = short_result(evaluation) if evaluation else f"trained {text.max_steps} steps"
    recorder.tags({"mlflow.runName": run_name(text, events, outcome)})
    links = [f"[Timeline]({recorder.page}/artifacts/curriculum/timeline.html)"]
    parts = [result_markdown(evaluation, "test")] if evaluation else []
    links += [evaluation_links(recorder)] if evaluation else []
    parts += [_event_table(events), " · ".join(links), f"```\n{result.statistics}\n```", UNIFORM]
    recorder.note("\n\n".join([*parts, text.links]).strip())


def run_name(text: RunText, events: Sequence[Event], outcome: str) -> str:
    """Return a training's name, such as `full · 46.6 % (base 33.7) · 1 rollback · seed 0`."""
    curriculum, newest = text.curriculum, events[-1]
    strategy, where = curriculum.strategy_class, curriculum.strategy_label
    if curriculum.enabled and strategy.uses_stages:
        # Only the default strategy rolls back: its name is left out, the others' are not.
        where = _stage(newest) if strategy.rolls_back else f"{where} {_stage(newest)}"
        where += f" (tries {newest['to_stage']})" if newest["kind"] in TRIAL_KINDS else ""
    rollbacks = newest["rollback_count"]
    counted = f"{rollbacks} rollback{'' if rollbacks == 1 else 's'}" if strategy.rolls_back else ""
    parts = [text.label, where, outcome, counted, f"seed {text.seed}"]
    return " · ".join(filter(None, parts))


def describe_model(recorder: MlflowRecorder) -> list[str]:
    """Return the address of the final adapter's model, and commands; none while MLflow is away."""
    model = measured_model(recorder, f"runs:/{recorder.run_id}") if recorder.flush() else None
    if model is None:
        return []
    address = f"models:/{model['model_id']}"
    return [
        f"model: {address}",
        f"  pixelis evaluate --adapter {address} --split validation",
        f"  pixelis export --adapter {address} --output_dir outputs/merged",
        f"  mlflow models serve -m {address} --env-manager local -p 5001",
    ]


def record_status(
    recorder: MlflowRecorder,
    text: RunText,
    events: Sequence[Event],
    *,
    step: int,
    error: BaseException | None = None,
) -> None:
    """Record the progress of the curriculum in the run's name, description and table.

    It is called at each event, so that a killed training shows its last one.
    """
    stages = _stages_reached(events, text.curriculum)
    last_step = int(events[-1]["step"])  # a metric has one value per step
    recorder.summary({"rollbacks": events[-1]["rollback_count"], **stages}, last_step)
    if stages:
        recorder.tags({"pixelis.stage_reached": _stage(events[-1])})
    where = f"at step {step} of {text.max_steps}"
    if isinstance(error, Stopped):
        recorder.tags({"pixelis.stopped": "true"})
        where = f"{error.word} after step {error.step} of {text.max_steps}"
    elif error is not None:
        where = f"failed after step {step} of {text.max_steps}"
    recorder.tags({"mlflow.runName": run_name(text, events, where)})
    recorder.note(f"{where[0].upper()}{where[1:]}.\n\n{text.links}\n\n{_event_table(events)}")


def _stages_reached(events: Sequence[Event], curriculum: CurriculumConfig) -> dict[str, float]:
    """Return the last stage's index and the first step of each stage; empty without stages."""
    if not curriculum.strategy_class.uses_stages:
        return {}
    reached = {e["to_stage"]: e["step"] for e in events if e["kind"] in ("start", "advance")}
    names = [stage.name for stage in curriculum.stages]
    steps = {f"steps_to/{stage}": step for stage, step in reached.items()}
    return {"stage_reached": names.index(_stage(events[-1])), **steps}


def _stage(event: Event) -> str:
    """Return the stage that an event leaves the training in, not a stage on trial."""
    return str(event["from_stage" if event["kind"] in TRIAL_KINDS else "to_stage"])


def _event_table(events: Sequence[Event]) -> str:
    lines = event_rows(events)
    if (num_left_out := len(events) - FIRST_SHOWN - LAST_SHOWN) > 0:
        empty = "| " * (lines[0].count("|") - 1)
        more = f"{empty}{num_left_out} more in curriculum/events.json |"
        lines = [*lines[: 2 + FIRST_SHOWN], more, *lines[-LAST_SHOWN:]]
    return "\n".join(lines)
