"""One Optuna study of a search, and the state of its trials."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import optuna
from optuna.pruners import NopPruner
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from pixelis.experiments.tune.sampling import SearchSettings
from pixelis.experiments.tune.space import Parameter
from pixelis.experiments.tune.storage import (
    MAX_RETRIES,
    open_storage,
    opening_errors,
    storage_lock,
)

# Attributes of a study.
IDENTITY, CREATED = "pixelis.identity", "pixelis.born"
# Attributes of a trial.
BASELINE, OVERRIDES, SEED, CLAIM, ERROR, REASON = (
    f"pixelis.{name}" for name in ("baseline", "overrides", "seed", "claim", "error", "reason")
)
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class SearchStudy:
    """An Optuna study with its space and settings.

    Attributes:
        url: URL of its storage.
        study: Optuna's study.
        space: The searched keys; empty if every trial is queued with its values.
        settings: The sampler's and pruner's settings and the number of trials.
    """

    url: str
    study: optuna.Study
    space: tuple[Parameter, ...]
    settings: SearchSettings

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials in the order in which they began; do not change them."""
        return self.study.get_trials(deepcopy=False)

    @property
    def is_running(self) -> bool:
        """Whether a trial is running, or its process has died unnoticed."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials)

    def finished_trials(self) -> list[FrozenTrial]:
        """Return the trials that will not run again: complete, pruned, or finally failed."""
        return [
            trial
            for trial in self.trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or error_of(trial)
        ]

    def num_finished(self) -> int:
        """Return the number of finished trials, at most the number of trials to run."""
        return min(len(self.finished_trials()), self.settings.num_trials)

    def best_trial(self) -> FrozenTrial | None:
        """Return the complete trial with the highest first objective, the earliest among equals."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.values[0], -trial.number), default=None)

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock under which a trial is chosen or put into the queue."""
        return storage_lock(self.url, "the choice of a trial")

    def enqueue(
        self,
        baseline: str,
        *,
        params: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        """Queue a baseline, unless it was queued before.

        Args:
            baseline: Name of the baseline.
            params: Its values of searched keys.
            overrides: Its values of other keys.
            seed: Seed of its training; by default the seeds of every trial.
        """
        if self._is_known(baseline):
            return
        with self.lock():
            if not self._is_known(baseline):  # another process may have queued it meanwhile
                notes = {BASELINE: baseline, OVERRIDES: dict(overrides or {}), SEED: seed}
                self.study.enqueue_trial(dict(params or {}), user_attrs=notes)

    def _is_known(self, baseline: str) -> bool:
        return any(trial.user_attrs.get(BASELINE) == baseline for trial in self.trials)


def open_study(
    url: str,
    name: str,
    settings: SearchSettings,
    *,
    space: tuple[Parameter, ...] = (),
    identity: Mapping[str, Any],
    directions: Sequence[Direction] = ("maximize",),
) -> SearchStudy:
    """Open a study, or create it if it does not exist.

    Args:
        url: See `open_storage`.
        name: Name of the study.
        settings: The search's settings.
        space: The searched keys.
        identity: Flat values that may not differ between two starts.
        directions: Directions of the objectives; a study with two never prunes.

    Raises:
        CheckpointError: When the storage holds a study of this name with another identity.
        UserError: When the storage cannot be opened.
    """
    storage = open_storage(url)
    with opening_errors(url), storage_lock(url, f"the set-up of the study {name}"):
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(directions),
            pruner=settings.build_pruner() if len(directions) == 1 else NopPruner(),
            load_if_exists=True,
        )
        if IDENTITY not in study.user_attrs:
            study.set_user_attr(CREATED, uuid4().hex)
            study.set_user_attr(IDENTITY, dict(identity))
        saved = study.user_attrs[IDENTITY]
        saved_directions = [direction.name.lower() for direction in study.directions]
    before, now = (
        saved | {"objectives": saved_directions},
        {**identity, "objectives": [*directions]},
    )
    if before != now:
        # Imported only here, because it imports torch, which takes seconds.
        from pixelis.training.checkpoint import check_same_config

        advice = "go on with the same values, or name another study"
        check_same_config(before, now, Path(name), what="study", advice=advice)
    return SearchStudy(url, study, space, settings)


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
