"""One worker of a search: trial after trial in one process, on one base and the same data."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from pixelis.evaluation.validation import Validation
from pixelis.experiments.tune import (
    BASELINES,
    POLL_SECONDS,
    TRIALS,
    Plan,
    Training,
    Trial,
    is_running,
    open_parts,
    run_trials,
    storage_errors,
)
from pixelis.models.device import best_device
from pixelis.models.lora import load_adapter
from pixelis.models.quiet import quiet_libraries
from pixelis.runs.train import Search, run_sft
from pixelis.training.checkpoint import read_json
from pixelis.training.resume import FINISHED_FILE
from pixelis.training.sft import Evaluations
from pixelis.training.stopping import Pruned
from pixelis.training.workbench import Workbench

TRIAL_TAG, PART_TAG = "optuna.trial", "optuna.part"


class Bench:
    """Trains what trials ask for; data, base and caches are loaded once."""

    def __init__(self, plan: Plan) -> None:
        """Load nothing yet."""
        self.plan = plan
        self.workbench = Workbench()
        self.part = TRIALS

    def prepare(self) -> None:
        """Load what trials share; the first of several workers makes the caches, others wait."""
        quiet_libraries()
        seed = self.plan.config.training.seed
        training = self.plan.training({}, seed, self.plan.root)
        self.workbench.prepare(
            training.model,
            Path(training.config.data.path),
            training.curriculum,
            training.config.training,
        )

    def search(self, trial: Trial) -> float | Sequence[float]:
        """The value of a trial of the search, or of a baseline: the mean over its seeds."""
        values = {**trial.params, **trial.overrides}
        folder, first = self._folder(trial), self.plan.config.training.seed
        found = []
        for number in range(self.plan.config.seeds_per_trial):
            training = self.plan.training(values, first + number, folder / f"seed-{first + number}")
            course = self._train(trial, training, watched=number == 0)
            batch = training.config.training
            num_examples = batch.batch_size * batch.gradient_accumulation_steps
            found.append((course, num_examples))
        performance = _mean([self.plan.performance(course[-1][1]) for course, _ in found])
        if self.plan.config.target is None:
            return performance
        return performance, _mean([self.plan.examples_to_target(*each) for each in found])

    def judge(self, trial: Trial) -> float:
        """The performance of one contestant with one fresh seed, on the test split."""
        assert trial.seed is not None
        training = self.plan.training(trial.overrides, trial.seed, self._folder(trial))
        self._train(trial, training, watched=False)
        return self._test(training)

    def _folder(self, trial: Trial) -> Path:
        return self.plan.root / self.part / str(trial.number)

    def _train(self, trial: Trial, training: Training, *, watched: bool) -> Evaluations:
        """Train, or go on, or read what is there; returns all evaluations."""
        config = training.config.training
        num_examples = config.batch_size * config.gradient_accumulation_steps
        told: set[int] = set()

        def report(evaluations: Evaluations) -> None:
            for step, strata in evaluations:
                # Trials are compared where all of them were measured.
                if step in told or step % config.eval_steps or step >= config.max_steps:
                    continue
                told.add(step)
                value = self.plan.performance(strata)
                if reason := trial.report(step * num_examples, value):
                    raise Pruned(step, reason)

        search = Search(
            label=trial.baseline or f"trial {trial.number}",
            tags={TRIAL_TAG: str(trial.number), PART_TAG: self.part},
            workbench=self.workbench,
            on_evaluation=report if watched else None,
        )
        try:
            run_sft(training.config, training.model, training.curriculum, search=search)
            finished = read_json(Path(config.output_dir) / FINISHED_FILE)
            strata: Evaluations = [(step, found) for step, found in finished["results"]["strata"]]
            # A trial that was cut off in a later training finds its first one finished, which says
            # nothing of its evaluations; Optuna knows those of a try only if this try tells them.
            if watched:
                report(strata)
        except Pruned as pruned:
            shutil.rmtree(Path(config.output_dir).parent, ignore_errors=True)
            raise trial.pruned(pruned.reason) from pruned
        return strata

    def _test(self, training: Training) -> float:
        """Teacher-forced, as the search measured, on a split that it never saw."""
        config, model = training.config, training.model
        encoder, datasets = self.workbench.load_data(
            model,
            Path(config.data.path),
            training.curriculum,
            max_length=config.training.max_length,
        )
        adapter = Path(config.training.output_dir) / "final"
        adapted = load_adapter(
            self.workbench.load_base(model), adapter, model_name=model.model_name
        )
        self.workbench.lend(adapted)
        adapted.to(best_device())
        measure = Validation(
            self.workbench.load_test(Path(config.data.path), encoder),
            training.curriculum.difficulties,
            samples_per_difficulty=training.curriculum.eval_samples_per_difficulty,
            batch_size=config.training.eval_batch_size,
            seed=config.training.seed,
        )
        metric = training.curriculum.performance_metric
        return self.plan.performance(
            {name: getattr(stratum, metric) for name, stratum in measure(adapted).items()}
        )


def run_worker(plan: Plan) -> None:
    """Run trials of every part of the study until none is left.

    Raises:
        TrialStopped: when a trial was asked to stop.
        UserError: when the storage is gone.
    """
    bench = Bench(plan)
    bench.prepare()
    _run_all(plan, bench)


@storage_errors()
def _run_all(plan: Plan, bench: Bench) -> None:
    """Run what is left of each part; what others are at may still come back."""
    # Baselines that are no points of the space come before the search, as those that are do in it.
    parts = sorted(open_parts(plan), key=lambda part: part.name != BASELINES)
    while True:
        others, ran = any(is_running(part.study) for part in parts), 0
        for part in parts:
            bench.part = part.name
            objective = bench.judge if part.is_final else bench.search
            folder = plan.root / part.name
            ran += run_trials(part.study, part.space, part.settings, objective, folder, wait=False)
        if not ran and not others:
            return
        if not ran:
            time.sleep(POLL_SECONDS)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
