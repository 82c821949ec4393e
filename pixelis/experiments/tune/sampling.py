"""Optuna's samplers and pruners with our settings."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial


@dataclass(frozen=True)
class SearchSettings:
    """The settings of a study's search.

    Attributes:
        sampler: tpe, gp or random.
        seed: Seed of the sampler.
        pruner: median, hyperband or none.
        warmup: Examples before which no trial is stopped.
        examples: Examples of a complete trial.
        num_trials: Number of trials to finish: complete, pruned or finally failed.
        interval: Examples between two evaluations, which is Hyperband's unit.
    """

    sampler: str
    seed: int
    pruner: str
    warmup: int
    examples: int
    num_trials: int
    interval: int = 1

    def build_pruner(self) -> BasePruner:
        """Build a pruner without a history."""
        if self.pruner == "median":
            return MedianPruner(n_startup_trials=4, n_warmup_steps=self.warmup, n_min_trials=3)
        if self.pruner == "hyperband":
            low = min(self.interval, self.examples)
            return HyperbandPruner(min_resource=low, max_resource=self.examples)
        return NopPruner()

    def build_sampler(self, num_begun: int) -> BaseSampler:
        """Build the sampler of the next trial.

        Args:
            num_begun: Number of trials so far. It is part of the seed, because a sampler that is
                rebuilt with the same seed, after a restart, would repeat its suggestions.
        """
        seed, startup = (self.seed + num_begun) % 2**32, min(10, max(2, self.num_trials // 3))
        if self.sampler == "gp":
            return PrunedAwareGPSampler(seed=seed, n_startup_trials=startup)
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
        )


class PrunedAwareGPSampler(GPSampler):
    """Optuna's Gaussian process that also learns from the last values of pruned trials.

    Optuna's own sampler learns only from complete trials: if its best point is pruned, it suggests
    the same point again and again. TPE counts pruned trials too.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the next values."""
        view: Any = _PrunedAsComplete(study)
        return super().sample_relative(view, trial, search_space)


class _PrunedAsComplete:
    """A view of a study in which pruned trials are complete."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=deepcopy, states=None, use_cache=use_cache)
        trials = [_as_complete(trial) for trial in trials]
        return [trial for trial in trials if states is None or trial.state in states]


def _as_complete(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.PRUNED or not trial.intermediate_values:
        return trial
    return create_trial(
        params=trial.params,
        distributions=trial.distributions,
        value=trial.intermediate_values[max(trial.intermediate_values)],
    )
