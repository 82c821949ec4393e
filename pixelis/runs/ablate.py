"""One run of `ablate`: train all arms in order and record their comparison in a parent run.

Each training is run once by sft in a process of its own.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.markdown import Markdown

from pixelis.config import (
    FIRST_TUNING_SEED,
    WITHOUT_EFFECT,
    AblateFileConfig,
    ModelFileConfig,
    TrainingFileConfig,
    flatten,
    load_config,
    to_yaml,
)
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import CheckpointError, UserError
from pixelis.evaluation.tables import as_text
from pixelis.experiments.ablation import (
    ALL,
    BASE,
    AblationTable,
    Outcome,
    ablation_figure,
    arms_markdown,
    arms_rows,
    choose_learning_rate,
    compare_arms,
    read_outcome,
)
from pixelis.experiments.arms import SAME_TOKENS, STAGED, UNIFORM, build_curriculum, matched_steps
from pixelis.files import write_atomic
from pixelis.progress import ProgressBar
from pixelis.runs.ablation_base import measure_base
from pixelis.runs.inputs import link_data_run, record_inputs, record_validation
from pixelis.runs.jobs import STOP_SECONDS, Job, run_jobs
from pixelis.runs.train import lock_file
from pixelis.runs.training_checks import check_training, resolved_params, training_identity
from pixelis.tracking import (
    MlflowRecorder,
    deliver_journals,
    find_journals,
    nested_environment,
    open_run,
)
from pixelis.training.checkpoint import (
    AUTO,
    FINISHED_FILE,
    check_same_config,
    read_json,
    write_json,
)
from pixelis.training.inputs import check_inputs, data_digest, trusted_digests

logger = logging.getLogger(__name__)

STATE_FILE, SETTINGS_FILE = "ablate.json", "training_params.yaml"
# Keys that may differ when a comparison is resumed: they add trainings, or change no result.
# What an arm changes is compared with the settings beside its finished trainings.
FREE = (
    *("arms", "seeds", "target_share", "num_workers", "training.output_dir"),
    *WITHOUT_EFFECT,
)


@dataclass(frozen=True)
class PlannedTraining:
    """One training of an arm: its folder and its settings."""

    arm: str
    seed: int
    folder: Path
    config: TrainingFileConfig

    @property
    def finished_file(self) -> Path:
        """The file that the training writes at its end."""
        return self.folder / "sft" / FINISHED_FILE

    def check_finished(self) -> None:
        """Refuse a finished training of an arm that had another curriculum.

        Raises:
            CheckpointError: naming the training and the keys that differ.
        """
        if not self.finished_file.is_file():
            return
        saved = load_config(TrainingFileConfig, self.folder / SETTINGS_FILE)
        before, now = (
            {key: value for key, value in flatten(each).items() if key.startswith("curriculum.")}
            for each in (saved, self.config)
        )
        advice = f"go on with the same values, give the arm {self.arm} another name, or move the "
        advice += "training away"
        check_same_config(before, now, self.folder, what="training", advice=advice)

    def read(self) -> Outcome:
        """Read the result of the training once it has ended."""
        file = self.finished_file
        return read_outcome(self.arm, self.seed, read_json(file), str(file))


def run_ablation(config: AblateFileConfig, model: ModelFileConfig) -> None:
    """Run the missing trainings, compare all of them, and record the comparison in one run.

    Raises:
        CheckpointError: When output_dir is in use, or holds a comparison with other settings.
        UserError: When a training fails.
    """
    data_dir, root = Path(config.data.path), Path(config.training.output_dir)
    digests, trusted = data_digest(data_dir), config.data.trusted_path
    # Check before anything is written; base and test examples are the same for all arms.
    seeds = range(config.training.seed, config.training.seed + config.seeds)
    plans = [plan_training(config, arm, seed) for arm in config.arms for seed in seeds]
    first, *others = plans[:: len(seeds)]
    curriculum = CurriculumConfig.from_dict(first.config.curriculum)
    # Arms are measured on the mix of the files, which data of one difficulty do not have.
    check_training(first.config, model.model, curriculum.replace(enabled=True))
    for other in others:
        check_inputs(data_dir, CurriculumConfig.from_dict(other.config.curriculum), trusted=trusted)
    params = flatten(config) | flatten(model)
    identity = {
        key: value
        for key, value in params.items()
        if key not in FREE and not key.startswith("arms.")
    }
    identity |= digests | trusted_digests(trusted)
    same = resolved_params(first.config, model.model, curriculum)
    same = training_identity(same, model.model, digests)
    # `make base` changes the weights behind a name, and `auto` differs between machines.
    identity |= {key: same.get(key) for key in ("model weights", "training.precision")}
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=0):
            with open_run(
                entry_point="ablate",
                experiment=config.exp_name,
                run_name=f"{config.exp_name} {len(config.arms)} arms, {config.seeds} seeds",
                params=params,
                tags={"pixelis.base_model": model.model.model_name},
                resume_run_id=_run_to_resume(root, identity, plans),
                output_dir=root,
            ) as recorder:
                write_json({"run_id": recorder.run_id, "identity": identity}, root / STATE_FILE)
                write_atomic(root / "model_arch.yaml", to_yaml(model))
                record_inputs(recorder, data_dir, digests, context="training")
                record_validation(recorder, data_dir, digests, trusted)
                data_line = link_data_run(recorder, digests)
                # Trainings that were killed after their last step may have undelivered records.
                finished = [file.parent for file in root.rglob(FINISHED_FILE)]
                for line in deliver_journals(find_journals([], finished))[1]:
                    logger.info("%s", line)
                base = measure_base(config, model.model, identity)
                table, rate = _run_trainings(config, recorder, base)
                _record(recorder, config, table, rate, data_line)
                print(recorder.url_hint(), flush=True)
    except Timeout as error:
        raise CheckpointError(
            f"training.output_dir {root} is in use by another comparison; name another folder"
        ) from error


def _run_to_resume(
    root: Path, identity: Mapping[str, Any], plans: Sequence[PlannedTraining]
) -> str | None:
    """Return the run of an earlier start of this comparison, or None.

    Refuse a comparison with other settings, then trainings of arms that were changed since.
    """
    # Without a training, settings cannot mix.
    has_trainings = any(root.rglob(FINISHED_FILE)) or any(root.rglob("checkpoint-*"))
    if not has_trainings and not (root / STATE_FILE).exists():
        return None
    state = read_json(root / STATE_FILE)
    if not isinstance(state, dict) or {"run_id", "identity"} - set(state):
        raise CheckpointError(f"{root / STATE_FILE} is damaged: run_id and identity must be in it")
    if not has_trainings:
        return None
    check_same_config(
        {key: value for key, value in state["identity"].items() if key not in FREE},
        identity,
        root,
        what="comparison",
        advice="go on with the same values, or name another training.output_dir",
    )
    for plan in plans:
        plan.check_finished()
    return str(state["run_id"])


def plan_training(
    config: AblateFileConfig,
    arm: str,
    seed: int,
    *,
    rate: float | None = None,
    max_steps: int | None = None,
    is_tuning: bool = False,
) -> PlannedTraining:
    """Plan one training of an arm; with `is_tuning` it does not use the test split."""
    rate = config.training.learning_rate if rate is None else rate
    parent = f"tuning/{arm}-{rate:g}" if is_tuning else arm
    folder = Path(config.training.output_dir) / parent / f"seed-{seed}"
    training = config.training.replace(
        seed=seed,
        learning_rate=rate,
        max_steps=max_steps or config.training.max_steps,
        output_dir=str(folder / "sft"),
    )
    file_config = TrainingFileConfig(
        exp_name=config.exp_name,
        resume=AUTO,
        data=config.data,
        training=training,
        curriculum=build_curriculum(
            arm, config.curriculum, training.max_steps, config.arm_changes.get(arm, {})
        ),
        evaluation=config.evaluation.replace(enabled=not is_tuning),
    )
    return PlannedTraining(arm, seed, folder, file_config)


def _run_trainings(
    config: AblateFileConfig, recorder: MlflowRecorder, base: Sequence[Mapping[str, float]]
) -> tuple[AblationTable, float | None]:
    """Return the table, and the learning rate of the uniform mix if that is an arm."""
    first, rates = config.training.seed, config.learning_rates
    seeds = range(first, first + config.seeds)
    has_uniform = UNIFORM in config.arms
    is_tuned = has_uniform and len(rates) > 1
    mix = CurriculumConfig.from_dict(config.curriculum).stages[-1].difficulty_mix
    total = len(config.arms) * config.seeds + is_tuned * len(rates) * config.tuning_seeds
    with ProgressBar("ablate", total, "training") as bar:
        rate = rates[0] if has_uniform else None
        if is_tuned:
            rate = _tune_rate(config, recorder, mix, bar)
        # Seed by seed, so that an interrupted comparison has complete rounds of all arms.
        plans = [
            plan_training(config, arm, seed, rate=rate if arm == UNIFORM else None)
            for seed in seeds
            for arm in config.arms
            if arm != SAME_TOKENS
        ]
        _train(config, plans, recorder, bar)
        by_arm = {arm: [p.read() for p in plans if p.arm == arm] for arm in config.arms}
        if SAME_TOKENS in config.arms:
            plans = []
            for seed, uniform, staged in zip(seeds, by_arm[UNIFORM], by_arm[STAGED], strict=True):
                steps = matched_steps(
                    config.training.max_steps, uniform.num_tokens, staged.num_tokens
                )
                plans.append(plan_training(config, SAME_TOKENS, seed, rate=rate, max_steps=steps))
            _train(config, plans, recorder, bar)
            by_arm[SAME_TOKENS] = [plan.read() for plan in plans]
    table = compare_arms(
        by_arm,
        mix,
        config.target_share,
        eval_steps=config.training.eval_steps,
        max_steps=config.training.max_steps,
        base=base,
    )
    return table, rate


def _tune_rate(
    config: AblateFileConfig,
    recorder: MlflowRecorder,
    mix: Mapping[str, float],
    bar: ProgressBar,
) -> float:
    """Return the learning rate of the uniform mix that does best on the validation split."""
    first = config.training.seed + FIRST_TUNING_SEED
    rates, seeds = config.learning_rates, range(first, first + config.tuning_seeds)
    plans = {
        rate: [plan_training(config, UNIFORM, seed, rate=rate, is_tuning=True) for seed in seeds]
        for rate in rates
    }
    _train(config, [plan for each in plans.values() for plan in each], recorder, bar, may_fail=True)
    by_rate: dict[float, list[Outcome]] = {
        rate: [plan.read() for plan in each]
        for rate, each in plans.items()
        if all(plan.finished_file.is_file() for plan in each)  # not a rate that diverged
    }
    listed = ", ".join(f"{rate:g}" for rate in rates)
    if not by_rate:
        logs = Path(config.training.output_dir) / "tuning"
        raise UserError(f"learning_rates: none of {listed} could be trained (logs: {logs})")
    chosen = choose_learning_rate(by_rate, mix)
    logger.info("%s: learning rate %g of %s", UNIFORM, chosen, listed)
    return chosen


def _train(
    config: AblateFileConfig,
    plans: Sequence[PlannedTraining],
    recorder: MlflowRecorder,
    bar: ProgressBar,
    *,
    may_fail: bool = False,
) -> None:
    """Run the trainings that are not finished.

    Raises:
        UserError: When a training fails that may not; the others are stopped.
    """
    missing = [plan for plan in plans if not plan.finished_file.is_file()]
    bar.update(len(plans) - len(missing))
    jobs = {_build_job(config, plan): plan for plan in missing}
    running = run_jobs(
        list(jobs), num_workers=config.num_workers, environment=nested_environment(recorder)
    )
    with closing(running) as ended:
        for job, failure, seconds in ended:
            if failure is not None and not may_fail:
                raise UserError(failure)
            if failure is not None:
                logger.info("%s; left out", failure)
            else:
                test = jobs[job].read().test
                result = " ".join(f"{name} {value:.3f}" for name, value in test.items())
                line = f"{job.name}: {result or 'trained'} ({seconds:.0f} s)"
                logger.info("%s", line, extra={"numbers": {**test, "seconds": seconds}})
            bar.update(1)


def _build_job(config: AblateFileConfig, plan: PlannedTraining) -> Job:
    """Write the settings of a training, and wait until no earlier process trains it."""
    root = Path(config.training.output_dir)
    plan.folder.mkdir(parents=True, exist_ok=True)
    file = plan.folder / SETTINGS_FILE
    write_atomic(file, to_yaml(plan.config))
    # A training may outlive a killed comparison by a moment and still hold its folder's lock.
    lock = lock_file(Path(plan.config.training.output_dir))
    with suppress(Timeout), FileLock(lock, timeout=STOP_SECONDS):
        pass
    name = str(plan.folder.relative_to(root)).replace("/", " ")
    argv = ("--config", str(file), "--model", str(root / "model_arch.yaml"))
    return Job(name, "pixelis.cli.sft", argv, plan.folder / "log.txt")


def _record(
    recorder: MlflowRecorder,
    config: AblateFileConfig,
    table: AblationTable,
    rate: float | None,
    data_line: str,
) -> None:
    text, rows = arms_markdown(table), arms_rows(table)
    print(as_text(Markdown(text)), end="")
    print(table.verdict, flush=True)
    text += f"\n\n{table.verdict}"
    recorder.table(rows, "ablation/table.json")
    recorder.text(f"{text}\n", "ablation/table.md")
    metric = CurriculumConfig.from_dict(config.curriculum).performance_metric
    steps = config.training.max_steps
    figure = ablation_figure(table, metric=metric, steps=steps)
    recorder.figure("ablation/arms.png", figure)
    root, picture = Path(config.training.output_dir), io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(root / "table.md", f"{text}\n")
    write_json(rows, root / "table.json")
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
        f"it counts with {steps}, and the mean is a lower bound (≥). {BASE}: untrained, on the "
        "test examples of the same seeds."
    )
    if SAME_TOKENS in config.arms:
        rule += f" {SAME_TOKENS}: as many steps as see the tokens of {STAGED} with the same seed."
    recorder.note(f"{text}\n\n{rule}\n\n{data_line}")
