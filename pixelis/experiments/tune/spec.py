"""The specification of a search: its settings, trainings and objectives, built from tune.yaml."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import product
from math import ceil, gcd
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

from pixelis.config import (
    FIRST_FINAL_SEED,
    SECTION,
    WITHOUT_EFFECT,
    ModelConfig,
    ModelFileConfig,
    TrainingFileConfig,
    TuneFileConfig,
    flatten,
    load_config,
)
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.experiments.tune.space import (
    all_values,
    build_space,
    contains,
    end_values,
    flatten_keys,
    with_values,
)

# A baseline may have other stages, because it is measured on the last mix of the search.
STAGES = "curriculum.stages"
# Keys that no trial may change, and why.
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
    STAGES: "every trial is measured on the last stage's mix",
    "model.model_name": "the trials share the base",
    "model.torch_dtype": "the trials share the base",
    "model.min_pixels": "the trials share the images",
    "model.max_pixels": "the trials share the images",
    "model.trust_remote_code": "no search decides that",
}
# Keys that may differ when a study is resumed: they add trials, or change no result.
FREE = (
    *("num_trials", "num_workers", "final_seeds", "best_config", "storage", "exp_name", "study"),
    *("prune_after", "sampler", "pruner", "data", "training.output_dir", "evaluation"),
    *WITHOUT_EFFECT,
)
BATCH_KEYS = ("training.batch_size", "training.gradient_accumulation_steps")
Strata = Mapping[str, float]


@dataclass(frozen=True)
class TrialTraining:
    """The settings of one training of a search, for `run_sft`."""

    config: TrainingFileConfig
    model: ModelConfig
    curriculum: CurriculumConfig

    @property
    def batch(self) -> int:
        """Examples of one optimiser step."""
        return self.config.training.batch_size * self.config.training.gradient_accumulation_steps


@dataclass(frozen=True)
class SearchSpec:
    """A search with its configuration."""

    config: TuneFileConfig  # content of tune.yaml
    model: ModelFileConfig  # content of the model's file

    def check(self) -> None:
        """Refuse settings with which no training could run.

        Raises:
            ConfigError: Naming the key, the rule and the value.
        """
        self.training({}, 0, Path())
        _ = self.space, self.baselines

    @cached_property
    def sections(self) -> dict[str, Any]:
        """The sections with searchable keys, with the curriculum's defaults filled in."""
        curriculum = CurriculumConfig.from_dict(self.config.curriculum).to_dict()
        return {
            "training": self.config.training.model_dump(),
            "curriculum": curriculum,
            "model": self.model.model.model_dump(),
        }

    @cached_property
    def known(self) -> dict[str, Any]:
        """Dotted key -> its value in the files, for every key of a trial."""
        return dict(flatten_keys(self.sections))

    @cached_property
    def space(self) -> dict[str, BaseDistribution]:
        """The searched keys, whose ranges were checked at both ends, batch sizes at each value."""
        space = build_space(self.config.space, self.known, FIXED)
        for name, distribution in space.items():
            for value in () if name in BATCH_KEYS else end_values(distribution):
                self._check(f"{SECTION}.{name}", {name: value})
        sizes = {name: all_values(space[name]) for name in BATCH_KEYS if name in space}
        for values in product(*sizes.values()):
            self._check(f"{SECTION}.{' and '.join(sizes)}", dict(zip(sizes, values, strict=True)))
        return space

    @cached_property
    def baselines(self) -> dict[str, dict[str, Any]]:
        """Name of each baseline -> its checked values by dotted key."""
        sections = self.config.baselines.items()
        return {name: self._read_baseline(name, section) for name, section in sections}

    def _read_baseline(self, name: str, section: Any) -> dict[str, Any]:
        if not isinstance(section, Mapping):
            raise ConfigError(f"baselines.{name} must be a section, got {section!r}")
        values = dict(flatten_keys(section))
        for key in values:
            if key not in self.known:
                raise ConfigError(
                    f"baselines.{name}.{key} must be a key of training, curriculum, model"
                )
            if key in FIXED and key != STAGES:
                raise ConfigError(f"baselines.{name}.{key} cannot be set: {FIXED[key]}")
        training = self._check(f"baselines.{name}", values)
        if lacking := sorted(self.measured_mix.keys() - training.curriculum.required_difficulties):
            raise ConfigError(
                f"baselines.{name} must have every difficulty that trials are measured on in its "
                f"last stage's mix, {', '.join(lacking)} is not"
            )
        return values

    def _check(self, name: str, values: Mapping[str, Any]) -> TrialTraining:
        """Build a training with these values, whose steps must divide the examples evenly."""
        try:
            training = self.training(values, 0, Path())
        except ConfigError as error:
            raise ConfigError(f"{name} must hold valid values: {error}") from error
        if gcd(self.examples, self.interval) % training.batch:
            raise ConfigError(
                f"{name} must have steps that divide the {self.examples} examples of a training "
                f"and the {self.interval} between evaluations, got {training.batch} examples a step"
            )
        return training

    def point_of(self, baseline: str) -> dict[str, Any] | None:
        """Return a baseline as a point of the search space, or None if it is outside."""
        values = self.baselines[baseline]
        point = {name: values.get(name, self.known[name]) for name in self.space}
        is_inside = all(contains(self.space[name], value) for name, value in point.items())
        return point if is_inside and values.keys() <= point.keys() else None

    @property
    def warmup(self) -> int:
        """Examples before which no trial is stopped."""
        return int(self.config.prune_after * self.examples)

    @property
    def directions(self) -> list[str]:
        """Directions of the objectives: performance and, with a target, the examples to it."""
        return ["maximize"] if self.config.target is None else ["maximize", "minimize"]

    @property
    def identity(self) -> dict[str, Any]:
        """Flat values that may not differ between two starts of one study."""
        params = flatten(self.config) | flatten(self.model)
        kept = {key: value for key, value in params.items() if not key.startswith(FREE)}
        # The content of the data counts, not its folder.
        kept["data.digest"] = self.digest
        plain = bool | int | float | str | None
        return {key: v if isinstance(v, plain) else str(v) for key, v in kept.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of the files of the data and of `data.trusted`."""
        # Imported only here, because it imports torch, which takes seconds.
        from pixelis.training.inputs import data_digest, trusted_digests

        data = self.config.data
        files = data_digest(Path(data.path)) | trusted_digests(data.trusted_path)
        return sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

    @property
    def examples(self) -> int:
        """Examples that every training sees."""
        training = self.config.training
        return training.max_steps * training.batch_size * training.gradient_accumulation_steps

    @property
    def interval(self) -> int:
        """Examples between two evaluations."""
        return self.examples * self.config.training.eval_steps // self.config.training.max_steps

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
        """Seeds of the verdict, which the search does not use."""
        first = self.config.training.seed + FIRST_FINAL_SEED
        return list(range(first, first + self.config.final_seeds))

    def training(self, values: Mapping[str, Any], seed: int, folder: Path) -> TrialTraining:
        """Build the training with these values of dotted keys; all trainings see equal examples.

        Raises:
            ConfigError: When the values break a rule.
        """
        sections = with_values(self.sections, values)
        training = sections["training"]
        batch = max(1, training["batch_size"] * training["gradient_accumulation_steps"])
        training |= {
            "seed": seed,
            "output_dir": str(folder / "sft"),
            "max_steps": max(1, ceil(self.examples / batch)),
            "eval_steps": max(1, self.interval // batch),  # measured after the same examples
        }
        model = load_config(ModelFileConfig, None, {"model": sections["model"]}).model
        curriculum = CurriculumConfig.from_dict(sections["curriculum"])
        config = load_config(
            TrainingFileConfig, None, {"training": training, "curriculum": curriculum.to_dict()}
        )
        config = config.replace(
            exp_name=self.config.exp_name,
            resume="auto",
            data=self.config.data,
            evaluation=self.config.evaluation.replace(enabled=False),
        )
        return TrialTraining(config, model, curriculum)

    def best(self, values: Mapping[str, Any]) -> TrialTraining:
        """Build the training of the best values as a user runs it."""
        best = self.training(values, self.config.training.seed, Path("outputs"))
        config = best.config.replace(
            exp_name=TrainingFileConfig().exp_name,
            resume=None,
            evaluation=self.config.evaluation,
            training=best.config.training.replace(output_dir="outputs/best"),
        )
        return replace(best, config=config)

    def performance(self, strata: Strata) -> float:
        """Compute the performance on the mix of the files' last stage, not the trial's."""
        return sum(share * strata[name] for name, share in self.measured_mix.items())

    @cached_property
    def measured_mix(self) -> dict[str, float]:
        """Difficulty -> its share, if above 0, in the mix that trials are measured on."""
        mix = CurriculumConfig.from_dict(self.config.curriculum).stages[-1].difficulty_mix
        return {name: share for name, share in mix.items() if share > 0}

    def examples_to_target(self, evaluations: Sequence[tuple[int, Strata]], batch: int) -> int:
        """Return the examples until the target was reached, or all of them (a lower bound).

        Only the regular evaluations (step, strata) count, which all trainings have; attempts to
        advance add others. `batch` is the examples of one step.
        """
        target, last = self.config.target, ceil(self.examples / batch)
        assert target is not None
        every = max(1, self.interval // batch)
        reached = (
            step
            for step, strata in evaluations
            if (step % every == 0 or step == last) and self.performance(strata) >= target
        )
        return min(batch * next(reached, last), self.examples)
