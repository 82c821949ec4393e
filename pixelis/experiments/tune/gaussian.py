"""A Gaussian process that knows of the trials that were stopped early."""

from collections.abc import Container
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial, TrialState, create_trial


class StoppedAwareGPSampler(GPSampler):
    """Optuna's, given a stopped trial as one with the value that it reported last.

    Optuna's own learns from whole trials alone: where the best guess is stopped, nothing is learned
    and the same point is guessed again, to the end of the study. TPE counts them as well.
    """

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The next values."""
        known: Any = _WithStopped(study)
        return super().sample_relative(known, trial, search_space)


class _WithStopped:
    """A study whose stopped trials look whole."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        every = self._study._get_trials(deepcopy=deepcopy, states=None, use_cache=use_cache)
        found = [_as_whole(trial) for trial in every]
        return [trial for trial in found if states is None or trial.state in states]


def _as_whole(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.PRUNED or not trial.intermediate_values:
        return trial
    return create_trial(
        params=trial.params,
        distributions=trial.distributions,
        value=trial.intermediate_values[max(trial.intermediate_values)],
    )
