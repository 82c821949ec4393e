"""Records of a training in its MLflow run, during the training and at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.config import TrainingFileConfig
from pixelis.curriculum import TRIAL_KINDS, CurriculumConfig
from pixelis.data.example import DIFFICULTIES
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


def record_result(
    recorder: MlflowRecorder,
    result: TrainingResult,
    config: TrainingFileConfig,
    curriculum: CurriculumConfig,
    links: str,
    label: str = "",
) -> str:
    """Record statistics, summary, name, description and adapters; return the description."""
    events = [event.to_dict() for event in result.events]
    max_steps = config.training.max_steps
    recorder.text(result.statistics, "curriculum/final_statistics.txt")
    _, last = result.evaluations[-1]
    stages = _stages_reached(events, curriculum)
    recorder.summary(
        {
            **{f"final/{d}": last[d] for d in DIFFICULTIES if d in last},
            "best/full_mix": result.best["performance"],
            "best/step": result.best["step"],
            "rollbacks": events[-1]["rollback_count"],
            "bad_steps": result.num_bad_steps,
            **stages,
        },
        max_steps,
    )
    if stages:
        recorder.tags({"pixelis.stage_reached": events[-1]["to_stage"]})
    hard = "hard" if "hard" in last else max(last)
    parts = [*_name_parts(events, curriculum, label), f"{hard} {last[hard]:.2f}"]
    recorder.tags({"mlflow.runName": " · ".join(parts)})
    description = "\n\n".join(
        filter(None, [f"```\n{result.statistics}\n```", UNIFORM, links, _event_table(events)])
    )
    recorder.note(description)
    best_step = int(result.best["step"])
    # The first at its step: after a rollback, strata of the restored weights follow at this step.
    best = next(strata for step, strata in result.evaluations if step == best_step)
    for name, folder, step, strata in (
        ("best", result.final_dir.with_name("best"), best_step, best),
        (FINAL, result.final_dir, max_steps, last),
    ):
        log_adapter(
            recorder,
            folder,
            name,
            step,
            {f"summary/{name}/{d}": value for d, value in strata.items()},
            register_as=config.register if name == FINAL else None,
        )
    return description


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
    events: Sequence[Event],
    curriculum: CurriculumConfig,
    links: str,
    *,
    step: int,
    max_steps: int,
    label: str = "",
    error: BaseException | None = None,
) -> None:
    """Record the progress of the curriculum in the run's name, description and table.

    It is called at each event, so that a killed training shows its last one.
    """
    stages = _stages_reached(events, curriculum)
    last_step = int(events[-1]["step"])  # a metric has one value per step
    recorder.summary({"rollbacks": events[-1]["rollback_count"], **stages}, last_step)
    if stages:
        recorder.tags({"pixelis.stage_reached": _stage(events[-1])})
    where = f"at step {step} of {max_steps}"
    if isinstance(error, Stopped):
        recorder.tags({"pixelis.stopped": "true"})
        where = f"{error.word} after step {error.step} of {max_steps}"
    elif error is not None:
        where = f"failed after step {step} of {max_steps}"
    recorder.tags({"mlflow.runName": " · ".join([*_name_parts(events, curriculum, label), where])})
    recorder.note(f"{where[0].upper()}{where[1:]}.\n\n{links}\n\n{_event_table(events)}")


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


def _name_parts(events: Sequence[Event], curriculum: CurriculumConfig, label: str) -> list[str]:
    newest = events[-1]
    parts, rollbacks = [curriculum.strategy_label], newest["rollback_count"]
    parts = [label, *parts] if label else parts
    if curriculum.enabled and curriculum.strategy_class.uses_stages:
        tries = f" (tries {newest['to_stage']})" if newest["kind"] in TRIAL_KINDS else ""
        parts.append(f"reached {_stage(newest)}{tries}")
    if curriculum.strategy_class.rolls_back:
        parts.append(f"{rollbacks} rollback{'' if rollbacks == 1 else 's'}")
    return parts


def _event_table(events: Sequence[Event]) -> str:
    lines = event_rows(events)
    if (num_left_out := len(events) - FIRST_SHOWN - LAST_SHOWN) > 0:
        empty = "| " * (lines[0].count("|") - 1)
        more = f"{empty}{num_left_out} more in curriculum/events.json |"
        lines = [*lines[: 2 + FIRST_SHOWN], more, *lines[-LAST_SHOWN:]]
    return "\n".join(lines)
