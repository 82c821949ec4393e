"""How a study searches: sampler, pruner, and when it is done."""

from dataclasses import dataclass

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from pixelis.experiments.tune.gaussian import StoppedAwareGPSampler


@dataclass(frozen=True)
class Settings:
    """How a study searches.

    Attributes:
        sampler: tpe, gp or random.
        seed: of the sampler.
        pruner: median, hyperband or none.
        warmup: examples that no trial is stopped before.
        examples: that a whole trial sees.
        interval: examples between two evaluations, what Hyperband counts in.
        num_trials: ended ones, whole, pruned or failed for good, after which the study is done.
    """

    sampler: str
    seed: int
    pruner: str
    warmup: int
    examples: int
    num_trials: int
    interval: int = 1

    def build_pruner(self) -> BasePruner:
        """A fresh pruner."""
        if self.pruner == "median":
            return MedianPruner(n_startup_trials=4, n_warmup_steps=self.warmup, n_min_trials=3)
        if self.pruner == "hyperband":
            low = min(self.interval, self.examples)
            return HyperbandPruner(min_resource=low, max_resource=self.examples)
        return NopPruner()

    def build_sampler(self, num_known: int, num_objectives: int = 1) -> BaseSampler:
        """A sampler whose seed depends on the trials so far: resumed, it does not begin again."""
        seed, startup = (self.seed + num_known) % 2**32, min(10, max(2, self.num_trials // 3))
        if self.sampler == "gp":
            return StoppedAwareGPSampler(seed=seed, n_startup_trials=startup)
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
        )
