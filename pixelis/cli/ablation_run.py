"""One comparison: its trainings as sft processes, what they came to, one parent run over them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markdown import Markdown
from tqdm import tqdm

from pixelis.ablation.arms import UNIFORM, build_curriculum
from pixelis.ablation.comparison import (
    ALL,
    AblationTable,
    as_markdown,
    as_rows,
    choose_learning_rate,
    compare,
)
from pixelis.ablation.figure import ablation_figure
from pixelis.ablation.outcome import Outcome, read_outcome
from pixelis.cli import sft
from pixelis.cli.jobs import Job, run_jobs
from pixelis.cli.making import link_data_run, record_inputs
from pixelis.cli.training_run import resolved_params, training_identity
from pixelis.config import (
    AblateFileConfig,
    ModelFileConfig,
    TrainingFileConfig,
    flatten,
    to_yaml,
)
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import CheckpointError
from pixelis.tracking import MlflowRecorder, nested_environment, open_run
from pixelis.training.checkpoint import check_same_config, read_json, write_json
from pixelis.training.inputs import check_inputs, data_digest
from pixelis.training.resume import AUTO, FINISHED_FILE

STATE_FILE = "ablate.json"
FIRST_TUNING_SEED = 1000  # far from those that are compared
# More of the same, or the same elsewhere: what is there already stays what it is.
FREE = ("arms", "seeds", "target_share", "num_workers", "training.output_dir")


@dataclass(frozen=True)
class _Run:
    """One training: where it lives and what it is."""

    arm: str
    seed: int
    folder: Path
    config: TrainingFileConfig

    @property
    def finished(self) -> Path:
        return self.folder / "sft" / FINISHED_FILE

    def read(self) -> Outcome:
        return read_outcome(self.arm, self.seed, read_json(self.finished), str(self.finished))


class _Runs:
    """The trainings of one comparison, each made once."""

    def __init__(
        self, config: AblateFileConfig, model: ModelFileConfig, digests: Mapping[str, str], bar: Any
    ) -> None:
        self.config, self.model, self.digests, self.bar = config, model, digests, bar
        self.root = Path(config.training.output_dir)

    def plan(self, arm: str, seed: int, rate: float | None = None, *, tuning: bool = False) -> _Run:
        """One training of an arm; one of tuning leaves the test split alone."""
        config = self.config
        rate = config.training.learning_rate if rate is None else rate
        folder = self.root / (f"tuning/{arm}-{rate:g}" if tuning else arm) / f"seed-{seed}"
        training = replace(
            config.training, seed=seed, learning_rate=rate, output_dir=str(folder / "sft")
        )
        settings = build_curriculum(arm, config.curriculum, training.max_steps)
        evaluation = replace(config.evaluation, enabled=not tuning)
        return _Run(
            arm,
            seed,
            folder,
            TrainingFileConfig(
                exp_name=config.exp_name,
                resume=AUTO,
                data=config.data,
                training=training,
                curriculum=settings,
                evaluation=evaluation,
            ),
        )

    def make(self, runs: Sequence[_Run], recorder: MlflowRecorder) -> list[Outcome]:
        """Train what is not there yet, and read what each came to."""
        jobs = {}
        for run in runs:
            if run.finished.is_file():
                self._check_same(run)
                self.bar.update(1)
            else:
                jobs[self._job(run)] = run

        def done(job: Job, seconds: float) -> None:
            outcome = jobs[job].read()
            reached = " ".join(f"{name} {value:.3f}" for name, value in outcome.test.items())
            self.say(f"{job.name}: {reached or 'trained'} ({seconds:.0f} s)")
            self.bar.update(1)

        run_jobs(
            sft.main,
            list(jobs),
            num_workers=self.config.num_workers,
            environment=nested_environment(recorder),
            on_done=done,
        )
        return [run.read() for run in runs]

    def _check_same(self, run: _Run) -> None:
        """Refuse a finished training that is not the one that is planned."""
        finished, model = read_json(run.finished), self.model.model
        curriculum = CurriculumConfig.from_dict(run.config.curriculum)
        params = resolved_params(run.config, model, curriculum)
        saved = finished.get("identity") if isinstance(finished, dict) else None
        if not isinstance(saved, dict):
            raise CheckpointError(f"{run.finished} is damaged: identity must be in it")
        check_same_config(saved, training_identity(params, model, self.digests), run.folder)

    def say(self, line: str) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def _job(self, run: _Run) -> Job:
        run.folder.mkdir(parents=True, exist_ok=True)
        config, model = run.folder / "training_params.yaml", self.root / "model_arch.yaml"
        config.write_text(to_yaml(run.config), encoding="utf-8")
        model.write_text(to_yaml(self.model), encoding="utf-8")
        words = ("--config", str(config), "--model", str(model))
        # One that outlives a killed comparison by a moment is waited for: its folder is locked.
        with FileLock(run.folder / ".sft.lock"):
            name = str(run.folder.relative_to(self.root)).replace("/", " ")
            return Job(name, words, run.folder / "log.txt")


def run_ablation(config: AblateFileConfig, model: ModelFileConfig) -> AblationTable:
    """Make the trainings that are missing, compare all, and leave the comparison in one run.

    Raises:
        CheckpointError: when output_dir is in use, or holds a comparison with other settings.
        UserError: when a training fails.
    """
    data_dir, root = Path(config.data.path), Path(config.training.output_dir)
    shared = CurriculumConfig.from_dict(config.curriculum)
    check_inputs(data_dir, shared)
    digests = data_digest(data_dir)
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
                table, rate = _run(config, model, digests, recorder)
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
    check_same_config(state["identity"], identity, root)
    return str(state["run_id"])


def _run(
    config: AblateFileConfig,
    model: ModelFileConfig,
    digests: Mapping[str, str],
    recorder: MlflowRecorder,
) -> tuple[AblationTable, float | None]:
    first = config.training.seed
    seeds = range(first, first + config.seeds)
    tuned = UNIFORM in config.arms and len(config.learning_rates) > 1
    rates = config.learning_rates if tuned else ()
    mix = CurriculumConfig.from_dict(config.curriculum).stages[-1].difficulty_mix
    total = len(rates) * config.tuning_seeds + len(config.arms) * config.seeds
    with tqdm(total=total, unit="training", desc="ablate", mininterval=1) as bar:
        runs = _Runs(config, model, digests, bar)
        tuning_seeds = range(
            first + FIRST_TUNING_SEED, first + FIRST_TUNING_SEED + config.tuning_seeds
        )
        plans = [runs.plan(UNIFORM, s, rate, tuning=True) for rate in rates for s in tuning_seeds]
        tried = iter(runs.make(plans, recorder))
        by_rate = {rate: [next(tried) for _ in tuning_seeds] for rate in rates}
        rate = config.learning_rates[0] if UNIFORM in config.arms else None
        if by_rate:
            rate = choose_learning_rate(by_rate, mix)
            runs.say(f"{UNIFORM}: learning rate {rate:g} of {', '.join(f'{r:g}' for r in rates)}")
        # Seed by seed, so that an interrupted comparison has whole rounds.
        plans = [
            runs.plan(arm, seed, rate if arm == UNIFORM else None)
            for seed in seeds
            for arm in config.arms
        ]
        outcomes = runs.make(plans, recorder)
    by_arm = {arm: [o for o in outcomes if o.arm == arm] for arm in config.arms}
    return compare(by_arm, mix, config.target_share), rate


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
    (root / "table.md").write_text(text + "\n", encoding="utf-8")
    figure.savefig(root / "arms.png")
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
        "performance on the last stage's mix."
    )
    recorder.note(f"{text}\n\n{rule}\n\n{data_line}")
