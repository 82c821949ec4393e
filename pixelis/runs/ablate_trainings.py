"""The trainings of a comparison, each run once by sft in a process of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from pixelis.config import AblateFileConfig, ModelFileConfig, TrainingFileConfig, to_yaml
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import CheckpointError
from pixelis.experiments.ablate.arms import build_curriculum
from pixelis.experiments.ablate.comparison import Outcome, read_outcome
from pixelis.files import write_atomic
from pixelis.runs.jobs import Job, log_above_bar, run_jobs
from pixelis.runs.train import lock_file
from pixelis.runs.training_checks import resolved_params, training_identity
from pixelis.tracking import (
    MlflowRecorder,
    deliver_journals,
    find_journals,
    nested_environment,
)
from pixelis.training.checkpoint import AUTO, FINISHED_FILE, check_same_config, read_json


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

    def read(self) -> Outcome:
        """Read the result of the training once it has ended."""
        file = self.finished_file
        return read_outcome(self.arm, self.seed, read_json(file), str(file))


class ArmTrainings:
    """The trainings of one comparison."""

    def __init__(
        self, config: AblateFileConfig, model: ModelFileConfig, digests: Mapping[str, str]
    ) -> None:
        """Set the checked settings and the digests of the data's files."""
        self.config, self.model, self.digests = config, model, digests
        self.root = Path(config.training.output_dir)

    def plan(
        self,
        arm: str,
        seed: int,
        *,
        rate: float | None = None,
        max_steps: int | None = None,
        is_tuning: bool = False,
    ) -> PlannedTraining:
        """Plan one training of an arm; with `is_tuning` it does not use the test split."""
        config = self.config
        rate = config.training.learning_rate if rate is None else rate
        folder = self.root / (f"tuning/{arm}-{rate:g}" if is_tuning else arm) / f"seed-{seed}"
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
            curriculum=build_curriculum(arm, config.curriculum, training.max_steps),
            evaluation=config.evaluation.replace(enabled=not is_tuning),
        )
        return PlannedTraining(arm, seed, folder, file_config)

    def run(
        self, plans: Sequence[PlannedTraining], recorder: MlflowRecorder, bar: "tqdm[Any]"
    ) -> list[Outcome]:
        """Run the trainings that are not finished, and read every result.

        Raises:
            UserError: When a training fails; the others are stopped.
        """
        self._train(plans, recorder, bar, on_failed=None)
        return [plan.read() for plan in plans]

    def run_all_that_can(
        self, plans: Sequence[PlannedTraining], recorder: MlflowRecorder, bar: "tqdm[Any]"
    ) -> None:
        """Run the trainings that are not finished; if one fails, the others continue."""

        def leave_out(job: Job, reason: str) -> None:
            log_above_bar(f"{reason}; left out")
            bar.update(1)

        self._train(plans, recorder, bar, on_failed=leave_out)

    def _train(
        self,
        plans: Sequence[PlannedTraining],
        recorder: MlflowRecorder,
        bar: "tqdm[Any]",
        on_failed: Callable[[Job, str], None] | None,
    ) -> None:
        jobs = {}
        for plan in plans:
            if plan.finished_file.is_file():
                self._check_same(plan)
                # A training that was killed after its last step may have undelivered records.
                _, lines = deliver_journals(find_journals([plan.folder]))
                for line in lines:
                    log_above_bar(line)
                bar.update(1)
            else:
                jobs[self._job(plan)] = plan

        def report(job: Job, seconds: float) -> None:
            test = jobs[job].read().test
            result = " ".join(f"{name} {value:.3f}" for name, value in test.items())
            log_above_bar(f"{job.name}: {result or 'trained'} ({seconds:.0f} s)")
            bar.update(1)

        run_jobs(
            list(jobs),
            num_workers=self.config.num_workers,
            environment=nested_environment(recorder),
            on_done=report,
            on_failed=on_failed,
        )

    def _check_same(self, plan: PlannedTraining) -> None:
        """Refuse a finished training that is not the planned one."""
        finished, model = read_json(plan.finished_file), self.model.model
        curriculum = CurriculumConfig.from_dict(plan.config.curriculum)
        params = resolved_params(plan.config, model, curriculum)
        saved = finished.get("identity") if isinstance(finished, dict) else None
        if not isinstance(saved, dict):
            raise CheckpointError(f"{plan.finished_file} is damaged: identity must be in it")
        check_same_config(
            saved,
            training_identity(params, model, self.digests),
            plan.folder,
            what="training",
            advice="move it away to have it made again",
        )

    def _job(self, plan: PlannedTraining) -> Job:
        plan.folder.mkdir(parents=True, exist_ok=True)
        config, model = plan.folder / "training_params.yaml", self.root / "model_arch.yaml"
        write_atomic(config, to_yaml(plan.config))
        write_atomic(model, to_yaml(self.model))
        name = str(plan.folder.relative_to(self.root)).replace("/", " ")
        # A training may outlive a killed comparison by a moment and still hold its folder's lock.
        lock = FileLock(lock_file(Path(plan.config.training.output_dir)), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            log_above_bar(f"{name}: waiting for an earlier training to leave {plan.folder}")
            lock.acquire(timeout=-1)
        lock.release()
        argv = ("--config", str(config), "--model", str(model))
        return Job(name, "pixelis.cli.sft", argv, plan.folder / "log.txt")
