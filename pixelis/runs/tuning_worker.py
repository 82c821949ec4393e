"""One worker of a search: it runs trials in one process."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from pixelis.data.dataset import CurriculumDataset
from pixelis.data.store import load_split
from pixelis.evaluation.validation import Validation
from pixelis.experiments.tune.spec import SearchSpec, TrialTraining
from pixelis.experiments.tune.study import open_phases
from pixelis.experiments.tune.trials import Trial, run_phases
from pixelis.models.load import silence_libraries
from pixelis.runs.train import Search, run_sft
from pixelis.training.adapter import load_trained
from pixelis.training.caches import load_encoder
from pixelis.training.callback import Evaluations
from pixelis.training.checkpoint import FINISHED_FILE, read_json
from pixelis.training.distributed import Pruned

TRIAL_TAG, PHASE_TAG = "optuna.trial", "optuna.part"


def run_worker(spec: SearchSpec) -> None:
    """Run trials of every phase until all are finished.

    Raises:
        KeyboardInterrupt: When a trial was asked to stop.
        UserError: When the storage is gone.
    """
    silence_libraries()
    run_phases(open_phases(spec).values(), partial(train_trial, spec))


def train_trial(spec: SearchSpec, trial: Trial) -> float | Sequence[float]:
    """Train a trial; return the means of its objectives over seeds on the validation split.

    A contestant of the verdict has one fresh seed, and its value is the performance on the test
    split.
    """
    values = {**trial.params, **trial.overrides}
    folder = spec.root / trial.phase / str(trial.number)
    if trial.seed is not None:
        training = spec.training(values, trial.seed, folder)
        _train(spec, trial, training, is_reported=False)
        return _test(spec, training)
    first = spec.config.training.seed
    performances, examples = [], []
    for seed in range(first, first + spec.config.seeds_per_trial):
        training = spec.training(values, seed, folder / f"seed-{seed}")
        evaluations = _train(spec, trial, training, is_reported=seed == first)
        performances.append(spec.performance(evaluations[-1][1]))
        if spec.config.target is not None:
            examples.append(spec.examples_to_target(evaluations, training.batch))
    if not examples:
        return fmean(performances)
    return fmean(performances), fmean(examples)


def _train(
    spec: SearchSpec, trial: Trial, training: TrialTraining, *, is_reported: bool
) -> Evaluations:
    """Start or resume a training, unless it is finished; return all evaluations."""
    config = training.config.training
    reported: set[int] = set()

    def report(evaluations: Evaluations) -> None:
        for step, strata in evaluations:
            # Trials are compared at the steps where all of them were measured.
            if step in reported or step % config.eval_steps or step >= config.max_steps:
                continue
            reported.add(step)
            if reason := trial.report(step * training.batch, spec.performance(strata)):
                raise Pruned(step, reason)

    search = Search(
        label=trial.baseline or f"trial {trial.number}",
        tags={TRIAL_TAG: str(trial.number), PHASE_TAG: trial.phase},
        on_evaluation=report if is_reported else None,
    )
    try:
        run_sft(training.config, training.model, training.curriculum, search=search)
        finished = read_json(Path(config.output_dir) / FINISHED_FILE)
        evaluations: Evaluations = [(step, each) for step, each in finished["results"]["strata"]]
        # If a trial was interrupted in a later training, its first one is finished and reports
        # nothing; Optuna knows the values of a try only if this try reports them.
        if is_reported:
            report(evaluations)
    except Pruned as pruned:
        shutil.rmtree(Path(config.output_dir).parent, ignore_errors=True)
        raise trial.pruned(pruned.reason) from pruned
    return evaluations


def _test(spec: SearchSpec, training: TrialTraining) -> float:
    """Measure a training like the search, teacher-forced, but on the test split."""
    config, model, curriculum = training.config, training.model, training.curriculum
    encoder = load_encoder(model, config.training.max_length)
    adapted = load_trained(model, Path(config.training.output_dir) / "final")
    measure = Validation(
        CurriculumDataset(load_split(Path(config.data.path), "test"), encoder),
        curriculum.difficulties,
        samples_per_difficulty=curriculum.eval_samples_per_difficulty,
        batch_size=config.training.eval_batch_size,
        seed=config.training.seed,
    )
    metric = curriculum.performance_metric
    return spec.performance(
        {name: getattr(stratum, metric) for name, stratum in measure(adapted).items()}
    )
