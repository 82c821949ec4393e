"""Every key of tune.yaml: a search over the settings of a training."""

from dataclasses import dataclass
from typing import Any

from pixelis.config.data_prep import MAX_SEED
from pixelis.config.schema import EvaluationConfig, TrainingConfig, TrainingDataConfig
from pixelis.config.search_space import merge_space
from pixelis.config.settings import open_section, setting
from pixelis.errors import ConfigError

SAMPLERS = ("tpe", "gp", "random")
PRUNERS = ("median", "hyperband", "none")
PART_ENDINGS = (" baselines", " final")
FIRST_FINAL_SEED = 2000  # beyond training.seed: far from those of the search


@dataclass(frozen=True)
class TuneFileConfig:
    """configs/tune.yaml."""

    exp_name: str = setting("tune", "experiment, and the run name's prefix")
    study: str = setting("curriculum", "the study's name; a second start goes on with it")
    storage: str | None = setting(
        None, "SQLAlchemy URL of the study's database; null: sqlite:///optuna.db"
    )
    num_trials: int = setting(24, "trials, those that were stopped early included", at_least=1)
    num_workers: int = setting(1, "processes that run trials side by side", at_least=1)
    seeds_per_trial: int = setting(1, "trainings that a trial's value is the mean of", at_least=1)
    final_seeds: int = setting(3, "fresh seeds of the verdict; 0: no verdict", at_least=0)
    target: float | None = setting(
        None,
        "second objective: examples until this performance; null: none",
        above=0,
        at_most=1,
    )
    sampler: str = setting("tpe", "what chooses the next values", choices=SAMPLERS)
    pruner: str = setting("median", "what stops a trial early", choices=PRUNERS)
    prune_after: float = setting(
        0.4, "share of a training before which no trial is stopped", at_least=0, at_most=1
    )
    best_config: str = setting("configs/best.yaml", "where the best settings are written")
    space: dict[str, Any] = open_section(
        "what is searched: a range or choices for each key", merge_space
    )
    baselines: dict[str, Any] = open_section("settings that are tried first, by name")
    data: TrainingDataConfig = TrainingDataConfig()
    training: TrainingConfig = TrainingConfig(output_dir="outputs/tune")
    curriculum: dict[str, Any] = open_section("stages, attempts and rollbacks")
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        """Check the rules that join several keys."""
        last = self.training.seed + FIRST_FINAL_SEED + self.final_seeds
        if max(last, self.training.seed + self.seeds_per_trial) > MAX_SEED:
            raise ConfigError(
                f"training.seed must leave room for seeds up to {MAX_SEED}, got "
                f"{self.training.seed}: the last one would be {last}"
            )
        if self.target is not None and self.pruner != "none":
            raise ConfigError(
                f"pruner must be none where target is set, got {self.pruner!r} (two objectives "
                "have no one value by which a trial could be stopped)"
            )
        if "/" in self.study or self.study.startswith("."):
            raise ConfigError(f"study must be a name, not a path, got {self.study!r}")
        if self.study.endswith(PART_ENDINGS):
            endings = " or ".join(repr(ending) for ending in PART_ENDINGS)
            raise ConfigError(
                f"study must not end in {endings}, got {self.study!r}: its parts are so named"
            )
