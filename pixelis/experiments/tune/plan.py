"""From tune.yaml to the trainings of a study: how each is configured, and what it is worth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

from pixelis.config import (
    FIRST_FINAL_SEED,
    ModelConfig,
    ModelFileConfig,
    TrainingConfig,
    TrainingFileConfig,
    TuneFileConfig,
    flatten,
    load_config,
)
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.experiments.tune.baselines import flat, read_baseline
from pixelis.experiments.tune.batches import check_batches
from pixelis.experiments.tune.settings import Settings
from pixelis.experiments.tune.space import Parameter, build_space, changed
from pixelis.training.inputs import data_digest
from pixelis.training.resume import AUTO

# What may not be searched: the rule of the first prefix that fits.
FIXED = {
    "training.seed": "a trial has the seeds from training.seed on, seeds_per_trial of them",
    "training.output_dir": "each trial has its own",
    "training.max_steps": "every trial sees the same number of examples",
    "training.eval_steps": "trials are compared at the same evaluations",
    "training.max_length": "every trial sees the same examples",
    "training.save_steps": "it changes no result",
    "training.save_total_limit": "it changes no result",
    "training.logging_steps": "it changes no result",
    "curriculum.performance_metric": "it is what trials are measured by",
    "curriculum.eval_samples_per_difficulty": "every trial is measured on the same examples",
    "curriculum.stages": "every trial is measured on the last stage's mix",
    "model.model_name": "the trials share the base",
    "model.torch_dtype": "the trials share the base",
    "model.min_pixels": "the trials share the images",
    "model.max_pixels": "the trials share the images",
    "model.trust_remote_code": "no search decides that",
}
# More of the same, or the same elsewhere: a study goes on with other values of these.
FREE = (
    *(
        "num_trials",
        "num_workers",
        "final_seeds",
        "best_config",
        "storage",
        "exp_name",
        "prune_after",
    ),
    *("sampler", "pruner", "data", "training.output_dir", "evaluation", "study"),
)
Strata = Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """One training of a study: what `run_sft` is given."""

    config: TrainingFileConfig
    model: ModelConfig
    curriculum: CurriculumConfig


@dataclass(frozen=True)
class Plan:
    """A study as its file says it.

    Attributes:
        config: tune.yaml.
        model: the model's file.
    """

    config: TuneFileConfig
    model: ModelFileConfig

    def check(self) -> None:
        """Refuse what could not be trained.

        Raises:
            ConfigError: naming the key, the rule and the value.
        """
        self.training({}, 0, Path())
        _ = self.space, self.baselines

    @cached_property
    def tree(self) -> dict[str, Any]:
        """The sections that a key may be in, curriculum defaults filled in."""
        curriculum = CurriculumConfig.from_dict(self.config.curriculum).to_dict()
        model = self.model.model.model_dump()
        return {
            "training": self.config.training.model_dump(),
            "curriculum": curriculum,
            "model": model,
        }

    @cached_property
    def space(self) -> tuple[Parameter, ...]:
        """What is searched; each end of each range gives a valid configuration."""
        found = build_space(self.config.space, dict(flat("", self.tree)), FIXED)
        check_batches(found, self.config.training, self.examples, self.interval)
        for parameter in found:
            for value in parameter.ends:
                try:
                    self.training({parameter.name: value}, 0, Path())
                except ConfigError as error:
                    raise ConfigError(
                        f"space.{parameter.name} must hold valid values, {value!r} is none: {error}"
                    ) from error
        return found

    @cached_property
    def baselines(self) -> dict[str, dict[str, Any]]:
        """Name -> dotted keys and values, each a valid configuration that is measured as trials."""
        known = dict(flat("", self.tree))

        def build(values: Mapping[str, Any]) -> tuple[TrainingConfig, CurriculumConfig]:
            training = self.training(values, 0, Path())
            return training.config.training, training.curriculum

        return {
            name: read_baseline(
                name,
                section,
                known=known,
                fixed=FIXED,
                build=build,
                measured=frozenset(self.measured_mix),
                examples=self.examples,
                interval=self.interval,
            )
            for name, section in self.config.baselines.items()
        }

    def point_of(self, baseline: str) -> dict[str, Any] | None:
        """A baseline as a point that the search could choose itself; None where it is none."""
        known, values = dict(flat("", self.tree)), self.baselines[baseline]
        point = {each.name: values.get(each.name, known.get(each.name)) for each in self.space}
        inside = all(each.contains(point[each.name]) for each in self.space)
        return point if inside and values.keys() <= point.keys() else None

    @property
    def settings(self) -> Settings:
        """How the study searches."""
        config = self.config
        return Settings(
            sampler=config.sampler,
            seed=config.training.seed,
            pruner=config.pruner,
            warmup=int(config.prune_after * self.examples),
            examples=self.examples,
            num_trials=config.num_trials,
            interval=self.interval,
        )

    @property
    def directions(self) -> tuple[Any, ...]:
        """Of the objectives."""
        return ("maximize",) if self.config.target is None else ("maximize", "minimize")

    @property
    def identity(self) -> dict[str, Any]:
        """What one study may not mix, flat."""
        params = flatten(self.config) | flatten(self.model)
        kept = {k: v for k, v in params.items() if not _is_free(k)}
        # The same data elsewhere is the same, other data in its place is not.
        kept["data.digest"] = self.digest
        return {key: _plain(value) for key, value in kept.items()}

    @cached_property
    def digest(self) -> str:
        """Of the data: a SHA-256 over those of its files, by their names."""
        files = data_digest(Path(self.config.data.path))
        return sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

    @property
    def examples(self) -> int:
        """That every training sees."""
        training = self.config.training
        return training.max_steps * training.batch_size * training.gradient_accumulation_steps

    @property
    def interval(self) -> int:
        """Examples between two evaluations."""
        training = self.config.training
        return training.eval_steps * training.batch_size * training.gradient_accumulation_steps

    @property
    def root(self) -> Path:
        """The study's folder."""
        return Path(self.config.training.output_dir) / self.config.study

    @property
    def storage(self) -> str:
        """The URL of the study's database."""
        return self.config.storage or "sqlite:///optuna.db"

    @property
    def final_seeds(self) -> list[int]:
        """Of the verdict: none that the search has seen."""
        first = self.config.training.seed + FIRST_FINAL_SEED
        return list(range(first, first + self.config.final_seeds))

    def training(self, values: Mapping[str, Any], seed: int, folder: Path) -> Training:
        """The training with these values of dotted keys; as long as it sees the same examples.

        Raises:
            ConfigError: when the values break a rule.
        """
        config = self.config
        tree = changed(self.tree, values)
        batch = tree["training"]["batch_size"] * tree["training"]["gradient_accumulation_steps"]
        tree["training"] |= {
            "seed": seed,
            "output_dir": str(folder / "sft"),
            "max_steps": max(1, ceil(self.examples / batch)),
            "eval_steps": max(1, self.interval // batch),  # measured at the same examples
        }
        model = load_config(ModelFileConfig, None, {"model": tree["model"]}).model
        curriculum = CurriculumConfig.from_dict(tree["curriculum"])
        built = load_config(
            TrainingFileConfig,
            None,
            {"training": tree["training"], "curriculum": curriculum.to_dict()},
        )
        built = built.replace(
            exp_name=config.exp_name,
            resume=AUTO,
            data=config.data,
            evaluation=config.evaluation.replace(enabled=False),
        )
        return Training(built, model, curriculum)

    def best(self, values: Mapping[str, Any]) -> Training:
        """The training that the best values stand for, as a user runs it."""
        found = self.training(values, self.config.training.seed, Path("outputs"))
        config = found.config.replace(
            exp_name=TrainingFileConfig().exp_name,
            resume=None,
            evaluation=self.config.evaluation,
            training=found.config.training.replace(output_dir="outputs/best"),
        )
        return replace(found, config=config)

    def performance(self, strata: Strata) -> float:
        """Of a training, on the mix of the base configuration's last stage, whatever its own is."""
        return sum(share * strata[name] for name, share in self.measured_mix.items())

    @cached_property
    def measured_mix(self) -> dict[str, float]:
        """What trials are measured on: difficulty -> its share, those without one left out."""
        mix = CurriculumConfig.from_dict(self.config.curriculum).stages[-1].difficulty_mix
        return {name: share for name, share in mix.items() if share > 0}

    def examples_to_target(self, course: Sequence[tuple[int, Strata]], batch: int) -> int:
        """Examples until the target was reached; all of them where it was not (a lower bound).

        At the evaluations that every training has: attempts to advance have more, at their own.
        """
        target, last = self.config.target, ceil(self.examples / batch)
        assert target is not None
        every = max(1, self.interval // batch)
        shared = (each for each in course if each[0] % every == 0 or each[0] == last)
        steps = (step for step, strata in shared if self.performance(strata) >= target)
        return min(batch * next(steps, last), self.examples)


def _is_free(key: str) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in FREE)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
