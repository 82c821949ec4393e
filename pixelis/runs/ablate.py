"""One comparison: which trainings, in what order, and the parent run over them."""

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
    as_markdown,
    as_rows,
    choose_learning_rate,
    compare,
)
from pixelis.experiments.ablate.figure import ablation_figure
from pixelis.experiments.ablate.outcome import Outcome
from pixelis.files import write_whole
from pixelis.runs.ablate_trainings import Runs
from pixelis.runs.inputs import link_data_run, record_inputs
from pixelis.runs.training_checks import check_training
from pixelis.tracking import MlflowRecorder, open_run
from pixelis.training.checkpoint import check_same_config, read_json, write_json
from pixelis.training.inputs import check_inputs, data_digest
from pixelis.training.resume import FINISHED_FILE

STATE_FILE = "ablate.json"
# More of the same, or the same elsewhere: what is there already stays what it is.
FREE = ("arms", "seeds", "target_share", "num_workers", "training.output_dir")


def run_ablation(config: AblateFileConfig, model: ModelFileConfig) -> AblationTable:
    """Make the trainings that are missing, compare all, and leave the comparison in one run.

    Raises:
        CheckpointError: when output_dir is in use, or holds a comparison with other settings.
        UserError: when a training fails.
    """
    data_dir, root = Path(config.data.path), Path(config.training.output_dir)
    digests = data_digest(data_dir)
    planned = Runs(config, model, digests)
    # Before anything is written; base and test examples are the same for all arms.
    first, *others = (planned.plan(arm, config.training.seed).config for arm in config.arms)
    check_training(first, model.model, CurriculumConfig.from_dict(first.curriculum))
    for training in others:
        check_inputs(data_dir, CurriculumConfig.from_dict(training.curriculum))
    params = flatten(config) | flatten(model)
    identity = {key: value for key, value in params.items() if key not in FREE} | digests
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=0):
            state = _read_state(root, identity)
            with open_run(
                entry_point="ablate",
                experiment=config.exp_name,
                run_name=f"{config.exp_name} {len(config.arms)} arms, {config.seeds} seeds",
                params=params,
                tags={"pixelis.base_model": model.model.model_name},
                resume_run_id=state,
                spool_dir=root,
            ) as recorder:
                write_json({"run_id": recorder.run_id, "identity": identity}, root / STATE_FILE)
                record_inputs(recorder, data_dir, digests, context="training")
                data_line = link_data_run(recorder, digests)
                table, rate = _run(config, planned, recorder)
                _record(recorder, config, table, rate, data_line)
                print(recorder.url_hint(), flush=True)
    except Timeout as error:
        raise CheckpointError(
            f"training.output_dir {root} is in use by another comparison; name another folder"
        ) from error
    return table


def _read_state(root: Path, identity: Mapping[str, Any]) -> str | None:
    """The run of a comparison that this one goes on with, or None."""
    if not (root / STATE_FILE).is_file():
        return None
    state = read_json(root / STATE_FILE)
    if not isinstance(state, dict) or {"run_id", "identity"} - set(state):
        raise CheckpointError(f"{root / STATE_FILE} is damaged: run_id and identity must be in it")
    if not any(root.rglob(FINISHED_FILE)) and not any(root.rglob("checkpoint-*")):
        return None  # nothing that could be mixed with what is asked for now
    check_same_config(
        state["identity"],
        identity,
        root,
        what="comparison",
        advice="go on with the same values, or name another training.output_dir",
    )
    return str(state["run_id"])


def _run(
    config: AblateFileConfig, runs: Runs, recorder: MlflowRecorder
) -> tuple[AblationTable, float | None]:
    first = config.training.seed
    seeds = range(first, first + config.seeds)
    tuned = UNIFORM in config.arms and len(config.learning_rates) > 1
    num_tuned = len(config.learning_rates) * config.tuning_seeds if tuned else 0
    total = num_tuned + len(config.arms) * config.seeds
    mix = CurriculumConfig.from_dict(config.curriculum).stages[-1].difficulty_mix
    with tqdm(total=total, unit="training", desc="ablate", mininterval=1) as bar:
        runs.bar = bar
        rate = config.learning_rates[0] if UNIFORM in config.arms else None
        if tuned:
            rate = _tune(config, runs, recorder, mix)
        # Seed by seed, so that an interrupted comparison has whole rounds.
        plans = [
            runs.plan(arm, seed, rate=rate if arm == UNIFORM else None)
            for seed in seeds
            for arm in config.arms
            if arm != SAME_TOKENS
        ]
        made = runs.make(plans, recorder)
        by_arm = {arm: [o for o in made if o.arm == arm] for arm in config.arms}
        if SAME_TOKENS in config.arms:
            steps = [
                matched_steps(config.training.max_steps, uniform.num_tokens, staged.num_tokens)
                for uniform, staged in zip(by_arm[UNIFORM], by_arm[STAGED], strict=True)
            ]
            plans = [
                runs.plan(SAME_TOKENS, seed, rate=rate, max_steps=max_steps)
                for seed, max_steps in zip(seeds, steps, strict=True)
            ]
            by_arm[SAME_TOKENS] = runs.make(plans, recorder)
    table = compare(
        by_arm,
        mix,
        config.target_share,
        eval_steps=config.training.eval_steps,
        max_steps=config.training.max_steps,
    )
    return table, rate


def _tune(
    config: AblateFileConfig, runs: Runs, recorder: MlflowRecorder, mix: Mapping[str, float]
) -> float:
    """The learning rate of the uniform mix that does best on the validation split."""
    rates = config.learning_rates
    first = config.training.seed + FIRST_TUNING_SEED
    seeds = range(first, first + config.tuning_seeds)
    plans = [runs.plan(UNIFORM, s, rate=rate, tuning=True) for rate in rates for s in seeds]
    tried = iter(runs.make_what_can_be(plans, recorder))
    by_rate: dict[float, list[Outcome]] = {}
    for rate in rates:  # one that diverges is no candidate
        outcomes = [next(tried) for _ in seeds]
        whole = [outcome for outcome in outcomes if outcome is not None]
        if len(whole) == len(seeds):
            by_rate[rate] = whole
    listed = ", ".join(f"{rate:g}" for rate in rates)
    if not by_rate:
        raise UserError(
            f"learning_rates: none of {listed} could be trained (logs: {runs.root / 'tuning'})"
        )
    chosen = choose_learning_rate(by_rate, mix)
    runs.say(f"{UNIFORM}: learning rate {chosen:g} of {listed}")
    return chosen


def _record(
    recorder: MlflowRecorder,
    config: AblateFileConfig,
    table: AblationTable,
    rate: float | None,
    data_line: str,
) -> None:
    text = as_markdown(table)
    Console(width=120).print(Markdown(text))
    rows = as_rows(table)
    recorder.table(rows, "ablation/table.json")
    recorder.text(text + "\n", "ablation/table.md")
    metric = CurriculumConfig.from_dict(config.curriculum).performance_metric
    steps = config.training.max_steps
    figure = ablation_figure(table, metric=metric, steps=steps)
    recorder.figure("ablation/arms.png", figure)
    root = Path(config.training.output_dir)
    write_whole(root / "table.md", text + "\n")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_whole(root / "arms.png", drawn.getvalue())
    values = {
        f"{row['arm']}/{key}": value
        for row in rows
        for key, value in row.items()
        if key != "arm" and value is not None
    }
    if rate is not None:
        values[f"{UNIFORM}/learning_rate"] = rate
    # A step counts once: when seeds are added, the new figures stand over the old ones.
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
