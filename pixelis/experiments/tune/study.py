"""The trials of one Optuna study: what each is given, what waits, what is done."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import TrialPruned
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from pixelis.experiments.tune.exclusive import choosing
from pixelis.experiments.tune.pruning import explain
from pixelis.experiments.tune.settings import Settings

MAX_RETRIES = 10  # of a trial whose process dies again and again

BASELINE, OVERRIDES, SEED, WORKER, ERROR, REASON = (
    f"pixelis.{name}" for name in ("baseline", "overrides", "seed", "worker", "error", "reason")
)


class Trial:
    """What the objective is given.

    Attributes:
        number: of the first try: names the trial's folder.
        params: dotted name -> value, of what is searched.
        baseline: the name of the baseline that it is, or None.
        overrides: dotted name -> value, of a baseline.
        seed: of its one training, or None.
    """

    def __init__(
        self, trial: optuna.Trial, params: Mapping[str, Any], settings: Settings, prunable: bool
    ) -> None:
        """Wrap Optuna's."""
        self._trial, self._settings, self._prunable = trial, settings, prunable
        frozen = _frozen(trial)
        self.number, self.params = first_number(frozen), dict(params)
        self.baseline: str | None = frozen.user_attrs.get(BASELINE)
        self.overrides: dict[str, Any] = frozen.user_attrs.get(OVERRIDES) or {}
        self.seed: int | None = frozen.user_attrs.get(SEED)

    def report(self, examples: int, value: float) -> str | None:
        """Tell an intermediate value, after so many examples; a baseline is never stopped.

        Returns:
            why the trial should end here, or None. The caller then ends with `pruned`.
        """
        if not self._prunable:
            return None
        self._trial.report(value, examples)
        is_free = self.baseline is not None or examples < self._settings.warmup
        if is_free or not self._trial.should_prune():
            return None
        reason = explain(
            self._trial.study, _frozen(self._trial), examples, value, self._settings.pruner
        )
        self.note(REASON, reason)
        return reason

    def pruned(self, reason: str) -> TrialPruned:
        """What the objective raises after `report` said that it should end."""
        return TrialPruned(reason)

    def note(self, key: str, value: Any) -> None:
        """Keep something with the trial."""
        self._trial.set_user_attr(key, value)


def enqueue(
    study: optuna.Study,
    baseline: str,
    *,
    params: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> None:
    """Let a baseline be the next trial, once in the study's life.

    Args:
        study: of `open_study`.
        baseline: its name.
        params: its values of what is searched.
        overrides: its values of anything else.
        seed: of its training; None: those of any trial.
    """
    if _is_known(study, baseline):
        return
    with choosing(study):  # asked again: only now nobody else can put it there
        if not _is_known(study, baseline):
            notes = {BASELINE: baseline, OVERRIDES: dict(overrides or {}), SEED: seed}
            study.enqueue_trial(dict(params or {}), user_attrs=notes)


def _is_known(study: optuna.Study, baseline: str) -> bool:
    trials = study.get_trials(deepcopy=False)
    return any(trial.user_attrs.get(BASELINE) == baseline for trial in trials)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended for good: whole, pruned, or failed by themselves."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and error_of(trial) is not None)
    ]


def error_of(trial: FrozenTrial) -> str | None:
    """Why a trial failed for good; None where it did not."""
    if trial.state != TrialState.FAIL:
        return None
    said: str | None = trial.user_attrs.get(ERROR)
    if said is None and num_tries(trial) > MAX_RETRIES:
        said = f"its process ended {num_tries(trial)} times before the trial did"
    return said


def num_tries(trial: FrozenTrial) -> int:
    """How often a trial was begun, this time included."""
    return len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) + 1


def is_running(study: optuna.Study) -> bool:
    """Whether any process is at a trial, or has died at one and nobody has noticed."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The whole trial with the highest first objective; the earliest of equals."""
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(whole, key=lambda trial: (trial.values[0], -trial.number), default=None)


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.study.get_trials(deepcopy=False)[trial.number]


def first_number(trial: FrozenTrial) -> int:
    """The number that a trial has everywhere but in Optuna, which counts each try anew."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first
