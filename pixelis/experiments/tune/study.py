"""The studies of a search: its baselines, its trials, and the verdict's trainings.

Each of the three phases is an Optuna study of its own in the same storage. In one study, a baseline
without a value for a searched key would leave the sampler no keys that all trials share.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState, create_trial

from pixelis.config import WITHOUT_EFFECT
from pixelis.errors import UserError
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.storage import (
    MAX_RETRIES,
    open_storage,
    storage_errors,
    storage_lock,
)

TRIALS, BASELINES, FINAL = "trials", "baselines", "final"  # and their folders below the study's
IDENTITY = "pixelis.identity"  # attribute of a study
# Attributes of a trial.
BASELINE, OVERRIDES, SEED, CHOSEN, ERROR, REASON = (
    f"pixelis.{name}" for name in ("baseline", "overrides", "seed", "chosen", "error", "reason")
)


@dataclass(frozen=True)
class SearchStudy:
    """One phase of a search."""

    spec: SearchSpec
    phase: str
    study: optuna.Study

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """The searched keys; empty in a phase whose trials are all queued with their values."""
        return self.spec.space if self.phase == TRIALS else {}

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials in the order in which they began; do not change them."""
        return self.study.get_trials(deepcopy=False)

    @property
    def num_trials(self) -> int:
        """Number of trials to finish: complete, pruned or finally failed."""
        if self.phase == TRIALS:
            return self.spec.config.num_trials
        return len({trial.user_attrs.get(BASELINE) for trial in self.trials})

    @property
    def is_running(self) -> bool:
        """Whether a trial is running, or its process has died unnoticed."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials)

    def finished_trials(self) -> list[FrozenTrial]:
        """Return the trials that will not run again: complete, pruned, or finally failed."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in self.trials if trial.state in ended or error_of(trial)]

    def num_finished(self) -> int:
        """Return the number of finished trials, at most the number of trials to run."""
        return min(len(self.finished_trials()), self.num_trials)

    def best_trial(self) -> FrozenTrial | None:
        """Return the complete trial with the highest first objective, the earliest among equals."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.values[0], -trial.number), default=None)

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock under which a trial is chosen or put into the queue."""
        return storage_lock(self.spec.storage)

    def enqueue(self, baseline: str, params: Mapping[str, Any], **notes: Any) -> None:
        """Queue a baseline with its values of searched keys, unless it was queued before.

        The notes are `overrides`, its values of other keys, and `seed`, that of its only training.
        """
        with self.lock():
            if any(trial.user_attrs.get(BASELINE) == baseline for trial in self.trials):
                return
            attributes = {f"pixelis.{name}": value for name, value in notes.items()}
            self.study.enqueue_trial(dict(params), user_attrs={BASELINE: baseline} | attributes)


@storage_errors()
def open_study(spec: SearchSpec, phase: str = TRIALS) -> SearchStudy:
    """Open the study of a phase, or create it if it does not exist.

    Raises:
        CheckpointError: When the storage holds a study of this name with another identity.
        UserError: When the storage cannot be opened, or the folder has another study's trainings.
    """
    storage, folder = open_storage(spec.storage), spec.root / phase
    name = spec.config.study if phase == TRIALS else f"{spec.config.study} {phase}"
    directions: list[Any] = ["maximize"] if phase == FINAL else spec.directions
    prunes = phase == TRIALS and len(directions) == 1
    now = spec.identity | {"objectives": directions}
    with storage_lock(spec.storage):
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=directions,
            pruner=build_pruner(spec, spec.config.pruner if prunes else "none"),
            load_if_exists=True,
        )
        if IDENTITY not in study.user_attrs:
            if folder.exists():
                optuna.delete_study(study_name=name, storage=storage)
                raise UserError(
                    f"the folder {folder} holds the trainings of another study {name!r}, whose "
                    "storage is another or was removed; name another study (study=...), another "
                    "training.output_dir, or remove the folder"
                )
            study.set_user_attr(IDENTITY, now)
        saved = study.user_attrs[IDENTITY]
    # An earlier version compared more.
    before = {key: value for key, value in saved.items() if key not in WITHOUT_EFFECT}
    if before != now:
        # Imported only here, because it imports torch, which takes seconds.
        from pixelis.training.checkpoint import check_same_config

        advice = "go on with the same values, or name another study"
        check_same_config(before, now, Path(name), what="study", advice=advice)
    return SearchStudy(spec, phase, study)


@storage_errors()
def open_phases(spec: SearchSpec) -> dict[str, SearchStudy]:
    """Open or create the studies of a search, in the order in which they are run.

    The baselines are queued, those in the search space as the first trials.

    Raises:
        CheckpointError: See `open_study`.
        UserError: See `open_study`.
    """
    trials = open_study(spec)  # first, because an error names its study as the user does
    studies = {BASELINES: open_study(spec, BASELINES), TRIALS: trials}
    studies[FINAL] = open_study(spec, FINAL)
    for name, values in spec.baselines.items():
        if (point := spec.point_of(name)) is not None:
            studies[TRIALS].enqueue(name, point)
        else:
            studies[BASELINES].enqueue(name, {}, overrides=values)
    return studies


def error_of(trial: FrozenTrial) -> str | None:
    """Return why a trial finally failed, or None if it did not."""
    if trial.state != TrialState.FAIL:
        return None
    num_tries = len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) + 1
    error: str | None = trial.user_attrs.get(ERROR)
    if error is None and num_tries > MAX_RETRIES:
        error = f"its process ended {num_tries} times before the trial did"
    return error


def first_number(trial: FrozenTrial) -> int:
    """Return the number of a trial's first try, which we show; Optuna numbers each try."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def build_pruner(spec: SearchSpec, name: str) -> BasePruner:
    """Build the pruner of a name, without a history."""
    if name == "median":
        return MedianPruner(n_startup_trials=4, n_warmup_steps=spec.warmup, n_min_trials=3)
    if name == "hyperband":  # its unit are the examples between two evaluations
        return HyperbandPruner(
            min_resource=min(spec.interval, spec.examples), max_resource=spec.examples
        )
    return NopPruner()


def build_sampler(spec: SearchSpec, num_begun: int) -> BaseSampler:
    """Build the sampler of the next trial.

    The number of trials so far is part of its seed: rebuilt with the same seed, after a restart, it
    would repeat its suggestions.
    """
    seed = (spec.config.training.seed + num_begun) % 2**32
    startup = min(10, max(2, spec.config.num_trials // 3))
    if spec.config.sampler == "gp":
        return PrunedAwareGPSampler(seed=seed, n_startup_trials=startup)
    if spec.config.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)


class PrunedAwareGPSampler(GPSampler):
    """Optuna's Gaussian process that also learns from the last values of pruned trials.

    Optuna's own sampler learns only from complete trials: if its best point is pruned, it suggests
    the same point again and again. TPE counts pruned trials too.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the next values by a copy of the study in which pruned trials are complete."""
        copy = optuna.create_study(directions=study.directions)
        others = [each for each in study.get_trials(deepcopy=False) if each.number < trial.number]
        copy.add_trials([_as_complete(each) for each in others])
        copy.ask()
        return super().sample_relative(copy, copy.trials[-1], search_space)


def _as_complete(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.PRUNED or not trial.intermediate_values:
        return trial
    return create_trial(
        params=trial.params,
        distributions=trial.distributions,
        value=trial.intermediate_values[max(trial.intermediate_values)],
    )
