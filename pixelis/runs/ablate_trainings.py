"""The trainings of a comparison: each planned, made once by sft in a process of its own, read."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from pixelis.config import AblateFileConfig, ModelFileConfig, TrainingFileConfig, to_yaml
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import CheckpointError
from pixelis.experiments.ablate.arms import build_curriculum
from pixelis.experiments.ablate.outcome import Outcome, read_outcome
from pixelis.files import write_whole
from pixelis.runs.jobs import Job, run_jobs
from pixelis.runs.train import lock_file
from pixelis.runs.training_checks import resolved_params, training_identity
from pixelis.tracking import (
    MlflowRecorder,
    deliver_spools,
    find_spools,
    nested_environment,
)
from pixelis.training.checkpoint import check_same_config, read_json
from pixelis.training.resume import AUTO, FINISHED_FILE


@dataclass(frozen=True)
class PlannedRun:
    """One training: where it lives and what it is."""

    arm: str
    seed: int
    folder: Path
    config: TrainingFileConfig

    @property
    def finished(self) -> Path:
        """The file that it ends with."""
        return self.folder / "sft" / FINISHED_FILE

    def read(self) -> Outcome:
        """What it came to, once it has ended."""
        return read_outcome(self.arm, self.seed, read_json(self.finished), str(self.finished))


class Runs:
    """The trainings of one comparison, each made once; `bar` shows how many are."""

    def __init__(
        self, config: AblateFileConfig, model: ModelFileConfig, digests: Mapping[str, str]
    ) -> None:
        """Take the checked settings; digests are those of the data's files."""
        self.config, self.model, self.digests = config, model, digests
        self.bar = tqdm(disable=True)
        self.root = Path(config.training.output_dir)

    def plan(
        self,
        arm: str,
        seed: int,
        *,
        rate: float | None = None,
        max_steps: int | None = None,
        tuning: bool = False,
    ) -> PlannedRun:
        """One training of an arm; one of tuning leaves the test split alone."""
        config = self.config
        rate = config.training.learning_rate if rate is None else rate
        folder = self.root / (f"tuning/{arm}-{rate:g}" if tuning else arm) / f"seed-{seed}"
        training = config.training.replace(
            seed=seed,
            learning_rate=rate,
            max_steps=max_steps or config.training.max_steps,
            output_dir=str(folder / "sft"),
        )
        settings = build_curriculum(arm, config.curriculum, training.max_steps)
        evaluation = config.evaluation.replace(enabled=not tuning)
        return PlannedRun(
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

    def make(self, runs: Sequence[PlannedRun], recorder: MlflowRecorder) -> list[Outcome]:
        """Train what is not there yet, and read what each came to."""
        self._train(runs, recorder, on_failed=None)
        return [run.read() for run in runs]

    def make_what_can_be(
        self, runs: Sequence[PlannedRun], recorder: MlflowRecorder
    ) -> list[Outcome | None]:
        """As `make`, but where a training fails the others go on, and there is None for it."""
        self._train(runs, recorder, on_failed=lambda job, why: self._done(f"{why}; left out"))
        return [run.read() if run.finished.is_file() else None for run in runs]

    def _train(
        self,
        runs: Sequence[PlannedRun],
        recorder: MlflowRecorder,
        on_failed: Callable[[Job, str], None] | None,
    ) -> None:
        jobs = {}
        for run in runs:
            if run.finished.is_file():
                self._check_same(run)
                deliver_spools(find_spools([run.folder]), self.say)  # see `training_run._run_sft`
                self.bar.update(1)
            else:
                jobs[self._job(run)] = run

        def done(job: Job, seconds: float) -> None:
            outcome = jobs[job].read()
            reached = " ".join(f"{name} {value:.3f}" for name, value in outcome.test.items())
            self._done(f"{job.name}: {reached or 'trained'} ({seconds:.0f} s)")

        run_jobs(
            list(jobs),
            num_workers=self.config.num_workers,
            environment=nested_environment(recorder),
            on_done=done,
            on_failed=on_failed,
        )

    def _done(self, line: str) -> None:
        self.say(line)
        self.bar.update(1)

    def _check_same(self, run: PlannedRun) -> None:
        """Refuse a finished training that is not the one that is planned."""
        finished, model = read_json(run.finished), self.model.model
        curriculum = CurriculumConfig.from_dict(run.config.curriculum)
        params = resolved_params(run.config, model, curriculum)
        saved = finished.get("identity") if isinstance(finished, dict) else None
        if not isinstance(saved, dict):
            raise CheckpointError(f"{run.finished} is damaged: identity must be in it")
        check_same_config(
            saved,
            training_identity(params, model, self.digests),
            run.folder,
            what="training",
            advice="move it away to have it made again",
        )

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def _job(self, run: PlannedRun) -> Job:
        run.folder.mkdir(parents=True, exist_ok=True)
        config, model = run.folder / "training_params.yaml", self.root / "model_arch.yaml"
        write_whole(config, to_yaml(run.config))
        write_whole(model, to_yaml(self.model))
        words = ("--config", str(config), "--model", str(model))
        name = str(run.folder.relative_to(self.root)).replace("/", " ")
        self._wait_for_an_earlier_one(run, name)
        return Job(name, "pixelis.cli.sft", words, run.folder / "log.txt")

    def _wait_for_an_earlier_one(self, run: PlannedRun, name: str) -> None:
        """One that outlives a killed comparison by a moment still holds its folder's lock."""
        lock = FileLock(lock_file(Path(run.config.training.output_dir)), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            self.say(f"{name}: waiting for an earlier training to leave {run.folder}")
            lock.acquire(timeout=-1)
        lock.release()
