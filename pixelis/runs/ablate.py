"""One run of `ablate`: train all arms in order and record their comparison in a parent run."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markdown import Markdown
from tqdm import tqdm

from pixelis.config import FIRST_TUNING_SEED, AblateFileConfig, ModelFileConfig, flatten
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import CheckpointError, UserError
from pixelis.experiments.ablate.arms import SAME_TOKENS, STAGED, UNIFORM, matched_steps
from pixelis.experiments.ablate.comparison import (
    ALL,
    AblationTable,
    Outcome,
    arms_markdown,
    arms_rows,
    choose_learning_rate,
    compare_arms,
)
from pixelis.experiments.ablate.figure import ablation_figure
from pixelis.files import write_atomic
from pixelis.runs.ablate_trainings import ArmTrainings
from pixelis.runs.inputs import link_data_run, record_inputs
from pixelis.runs.jobs import log_above_bar
from pixelis.runs.training_checks import check_training
from pixelis.tracking import MlflowRecorder, open_run
from pixelis.training.checkpoint import FINISHED_FILE, check_same_config, read_json, write_json
from pixelis.training.inputs import check_inputs, data_digest

STATE_FILE = "ablate.json"
# Keys that may differ when a comparison is resumed: they add trainings, or change only folders.
FREE = ("arms", "seeds", "target_share", "num_workers", "training.output_dir")


def run_ablation(config: AblateFileConfig, model: ModelFileConfig) -> None:
    """Run the missing trainings, compare all of them, and record the comparison in one run.

    Raises:
        CheckpointError: When output_dir is in use, or holds a comparison with other settings.
        UserError: When a training fails.
    """
    data_dir, root = Path(config.data.path), Path(config.training.output_dir)
    digests = data_digest(data_dir)
    trainings = ArmTrainings(config, model, digests)
    # Check before anything is written; base and test examples are the same for all arms.
    first, *others = (trainings.plan(arm, config.training.seed).config for arm in config.arms)
    check_training(first, model.model, CurriculumConfig.from_dict(first.curriculum))
    for other in others:
        check_inputs(data_dir, CurriculumConfig.from_dict(other.curriculum))
    params = flatten(config) | flatten(model)
    identity = {key: value for key, value in params.items() if key not in FREE} | digests
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=0):
            with open_run(
                entry_point="ablate",
                experiment=config.exp_name,
                run_name=f"{config.exp_name} {len(config.arms)} arms, {config.seeds} seeds",
                params=params,
                tags={"pixelis.base_model": model.model.model_name},
                resume_run_id=_run_to_resume(root, identity),
                output_dir=root,
            ) as recorder:
                write_json({"run_id": recorder.run_id, "identity": identity}, root / STATE_FILE)
                record_inputs(recorder, data_dir, digests, context="training")
                data_line = link_data_run(recorder, digests)
                table, rate = _run_trainings(config, trainings, recorder)
                _record(recorder, config, table, rate, data_line)
                print(recorder.url_hint(), flush=True)
    except Timeout as error:
        raise CheckpointError(
            f"training.output_dir {root} is in use by another comparison; name another folder"
        ) from error


def _run_to_resume(root: Path, identity: Mapping[str, Any]) -> str | None:
    """Return the run of an earlier start of this comparison, or None."""
    if not (root / STATE_FILE).is_file():
        return None
    state = read_json(root / STATE_FILE)
    if not isinstance(state, dict) or {"run_id", "identity"} - set(state):
        raise CheckpointError(f"{root / STATE_FILE} is damaged: run_id and identity must be in it")
    if not any(root.rglob(FINISHED_FILE)) and not any(root.rglob("checkpoint-*")):
        return None  # there is no training yet, so settings cannot mix
    check_same_config(
        state["identity"],
        identity,
        root,
        what="comparison",
        advice="go on with the same values, or name another training.output_dir",
    )
    return str(state["run_id"])


def _run_trainings(
    config: AblateFileConfig, trainings: ArmTrainings, recorder: MlflowRecorder
) -> tuple[AblationTable, float | None]:
    """Return the table, and the learning rate of the uniform mix if that is an arm."""
    first, rates = config.training.seed, config.learning_rates
    seeds = range(first, first + config.seeds)
    has_uniform = UNIFORM in config.arms
    is_tuned = has_uniform and len(rates) > 1
    mix = CurriculumConfig.from_dict(config.curriculum).stages[-1].difficulty_mix
    total = len(config.arms) * config.seeds + is_tuned * len(rates) * config.tuning_seeds
    with tqdm(total=total, unit="training", desc="ablate", mininterval=1) as bar:
        rate = rates[0] if has_uniform else None
        if is_tuned:
            rate = _tune_rate(config, trainings, recorder, mix, bar)
        # Seed by seed, so that an interrupted comparison has complete rounds of all arms.
        plans = [
            trainings.plan(arm, seed, rate=rate if arm == UNIFORM else None)
            for seed in seeds
            for arm in config.arms
            if arm != SAME_TOKENS
        ]
        outcomes = trainings.run(plans, recorder, bar)
        by_arm = {arm: [o for o in outcomes if o.arm == arm] for arm in config.arms}
        if SAME_TOKENS in config.arms:
            plans = []
            for seed, uniform, staged in zip(seeds, by_arm[UNIFORM], by_arm[STAGED], strict=True):
                steps = matched_steps(
                    config.training.max_steps, uniform.num_tokens, staged.num_tokens
                )
                plans.append(trainings.plan(SAME_TOKENS, seed, rate=rate, max_steps=steps))
            by_arm[SAME_TOKENS] = trainings.run(plans, recorder, bar)
    table = compare_arms(
        by_arm,
        mix,
        config.target_share,
        eval_steps=config.training.eval_steps,
        max_steps=config.training.max_steps,
    )
    return table, rate


def _tune_rate(
    config: AblateFileConfig,
    trainings: ArmTrainings,
    recorder: MlflowRecorder,
    mix: Mapping[str, float],
    bar: "tqdm[Any]",
) -> float:
    """Return the learning rate of the uniform mix that does best on the validation split."""
    first = config.training.seed + FIRST_TUNING_SEED
    rates, seeds = config.learning_rates, range(first, first + config.tuning_seeds)
    plans = {
        rate: [trainings.plan(UNIFORM, seed, rate=rate, is_tuning=True) for seed in seeds]
        for rate in rates
    }
    trainings.run_all_that_can([plan for each in plans.values() for plan in each], recorder, bar)
    by_rate: dict[float, list[Outcome]] = {
        rate: [plan.read() for plan in each]
        for rate, each in plans.items()
        if all(plan.finished_file.is_file() for plan in each)  # not a rate that diverged
    }
    listed = ", ".join(f"{rate:g}" for rate in rates)
    if not by_rate:
        raise UserError(
            f"learning_rates: none of {listed} could be trained (logs: {trainings.root / 'tuning'})"
        )
    chosen = choose_learning_rate(by_rate, mix)
    log_above_bar(f"{UNIFORM}: learning rate {chosen:g} of {listed}")
    return chosen


def _record(
    recorder: MlflowRecorder,
    config: AblateFileConfig,
    table: AblationTable,
    rate: float | None,
    data_line: str,
) -> None:
    text, rows = arms_markdown(table), arms_rows(table)
    Console(width=120).print(Markdown(text))
    recorder.table(rows, "ablation/table.json")
    recorder.text(f"{text}\n", "ablation/table.md")
    metric = CurriculumConfig.from_dict(config.curriculum).performance_metric
    steps = config.training.max_steps
    figure = ablation_figure(table, metric=metric, steps=steps)
    recorder.figure("ablation/arms.png", figure)
    root, picture = Path(config.training.output_dir), io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(root / "table.md", f"{text}\n")
    write_atomic(root / "arms.png", picture.getvalue())
    values = {
        f"{row['arm']}/{key}": value
        for row in rows
        for key, value in row.items()
        if key != "arm" and value is not None
    }
    if rate is not None:
        values[f"{UNIFORM}/learning_rate"] = rate
    # The step is the number of trainings, so that values with more seeds follow the older ones.
    recorder.summary(values, sum(row.num_seeds for row in table.rows))
    best = max(table.rows, key=lambda row: row.accuracy[ALL].mean)
    name = f"{len(table.rows)} arms · {config.seeds} seeds · best {best.arm}"
    recorder.tags({"mlflow.runName": f"{name} {best.accuracy[ALL].mean:.2f}"})
    rule = (
        "Test answer accuracy by rollouts; mean ± half a 95 % interval (Student's t over seeds). "
        f"Steps to {config.target_share:.0%} of {table.rows[0].arm}'s final validation "
        "performance on the last stage's mix, at scheduled evaluations; a seed that did not reach "
        f"it counts with {steps}, and the mean is a lower bound (≥)."
    )
    if SAME_TOKENS in config.arms:
        rule += f" {SAME_TOKENS}: as many steps as see the tokens of {STAGED} with the same seed."
    recorder.note(f"{text}\n\n{rule}\n\n{data_line}")
