"""The settings of the curriculum: every key with its default and its rule, checked at the door."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelis.curriculum.checks import (
    check_choice,
    check_keys,
    check_mix,
    is_integer,
    is_number,
    prefixed,
    require,
)
from pixelis.curriculum.sections import (
    SECTIONS,
    AdaptiveConfig,
    CompetenceConfig,
    ScheduleConfig,
    SelfPacedConfig,
    store_floats,
)
from pixelis.curriculum.strategies import STRATEGIES, Strategy
from pixelis.errors import ConfigError

PERFORMANCE_METRICS = ("token_accuracy", "answer_accuracy", "likelihood")
ROLLBACK_SCOPES = ("data", "data+weights")


@dataclass(frozen=True)
class Stage:
    """A name and a mix: what share of the training examples each difficulty gives."""

    name: str
    difficulty_mix: dict[str, float]

    def __post_init__(self) -> None:
        """Check the name and the mix."""
        is_name = isinstance(self.name, str) and self.name.strip() != ""
        require(is_name, "the name of a stage", "a non-empty string", self.name)
        mix = check_mix(f"difficulty_mix of stage '{self.name}'", self.difficulty_mix)
        object.__setattr__(self, "difficulty_mix", mix)


DEFAULT_STAGES = (
    Stage("simple", {"simple": 1.0, "medium": 0.0, "hard": 0.0}),
    Stage("balanced", {"simple": 0.4, "medium": 0.4, "hard": 0.2}),
    Stage("full", {"simple": 0.2, "medium": 0.3, "hard": 0.5}),
)


@dataclass(frozen=True)
class CurriculumConfig:
    """The section `curriculum` of `configs/training_params.yaml`."""

    enabled: bool = True
    strategy: str = "staged"
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    advancement_interval: int = 500
    min_performance_for_advance: float = 0.6
    performance_metric: str = "token_accuracy"
    performance_window: int = 1
    eval_samples_per_difficulty: int = 128
    scored_pool_size: int | None = 1024
    rollback_enabled: bool = True
    rollback_threshold: float = -0.05
    rollback_cooldown: int = 1000
    rollback_factor: float = 2.0
    max_rollbacks: int | None = None
    trial_steps: int = 0
    rollback_scope: str = "data"
    competence: CompetenceConfig = field(default_factory=CompetenceConfig)
    self_paced: SelfPacedConfig = field(default_factory=SelfPacedConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)

    def __post_init__(self) -> None:
        """Check every setting, then those that depend on one another."""
        for key in ("enabled", "rollback_enabled"):
            value = getattr(self, key)
            require(isinstance(value, bool), key, "true or false", value)
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("performance_metric", self.performance_metric, PERFORMANCE_METRICS)
        check_choice("rollback_scope", self.rollback_scope, ROLLBACK_SCOPES)
        for key in ("advancement_interval", "performance_window", "eval_samples_per_difficulty"):
            require(is_integer(getattr(self, key), 1), key, "an integer >= 1", getattr(self, key))
        for key in ("rollback_cooldown", "trial_steps"):
            require(is_integer(getattr(self, key), 0), key, "an integer >= 0", getattr(self, key))
        minimum, threshold = self.min_performance_for_advance, self.rollback_threshold
        require(is_number(minimum, 0, 1), "min_performance_for_advance", "in [0, 1]", minimum)
        note = "a drop is negative" if is_number(threshold, 0) else ""
        require(is_number(threshold, -1, 0), "rollback_threshold", "in [-1, 0]", threshold, note)
        factor = self.rollback_factor
        require(is_number(factor, 1), "rollback_factor", "a number >= 1", factor)
        for key in ("max_rollbacks", "scored_pool_size"):
            value = getattr(self, key)
            is_valid = value is None or is_integer(value, 1)
            require(is_valid, key, "null or an integer >= 1", value)
        for key, section in SECTIONS.items():
            value = getattr(self, key)
            require(isinstance(value, section), key, f"a {section.__name__}", value)
        store_floats(self)
        self._check_stages()
        self._check_combinations()

    def _check_stages(self) -> None:
        is_list = isinstance(self.stages, list | tuple) and len(self.stages) > 0
        require(is_list, "stages", "a list of at least one stage", self.stages)
        for stage in self.stages:
            rule = "stages, each with a name and a difficulty_mix"
            require(isinstance(stage, Stage), "stages", rule, stage)
        names = [stage.name for stage in self.stages]
        for name in names:
            require(names.count(name) == 1, "stages: their names", "different", name, "used twice")
        object.__setattr__(self, "stages", tuple(self.stages))

    def _check_combinations(self) -> None:
        if self.rollback_scope == "data+weights" and self.trial_steps == 0:
            raise ConfigError(
                "rollback_scope must be data where trial_steps is 0, got 'data+weights' "
                "(an attempt decided at once trains nothing that could be restored)"
            )
        if self.strategy == "schedule":
            steps, needed = self.schedule.steps, len(self.stages) - 1
            rule = f"a list of {needed} steps, one for each stage but the first"
            is_complete = steps is not None and len(steps) == needed
            require(is_complete, "schedule.steps", rule, steps, "strategy is schedule")
        if self.strategy == "adaptive":
            floor, most = self.adaptive.floor, len(self.required_difficulties)
            rule = f"at most 1/{most}, the even share of {most} difficulties"
            require(floor * most <= 1 + 1e-9, "adaptive.floor", rule, floor)

    @property
    def strategy_class(self) -> type[Strategy]:
        """The strategy in force: where the curriculum is off, the fixed mix of the last stage."""
        return STRATEGIES[self.strategy] if self.enabled else Strategy

    @property
    def strategy_label(self) -> str:
        """What a person reads for the strategy in force."""
        return self.strategy if self.enabled else "fixed mix"

    @property
    def difficulties(self) -> tuple[str, ...]:
        """Every difficulty that a stage names, in the order of first mention."""
        return tuple({name: None for stage in self.stages for name in stage.difficulty_mix})

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        """The stages that training can be in: where the curriculum is off, the last alone."""
        return self.stages if self.enabled else self.stages[-1:]

    @property
    def required_difficulties(self) -> tuple[str, ...]:
        """Every difficulty that an active stage uses: each evaluation measures all of them."""
        stages = self.active_stages
        return tuple(
            name
            for name in self.difficulties
            if any(stage.difficulty_mix.get(name, 0) > 0 for stage in stages)
        )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "CurriculumConfig":
        """Build the config from the YAML section; what is not given has its default."""
        values = dict(check_keys(settings, _names(cls), "curriculum"))
        for key, section in SECTIONS.items():
            if key in values:
                values[key] = check_keys(values[key], _names(section), f"curriculum.{key}")
        if "stages" in values:
            values["stages"] = _build_stages(values["stages"])
        with prefixed("curriculum."):
            built = {key: SECTIONS[key](**values[key]) for key in SECTIONS if key in values}
            return cls(**values | built)

    def to_dict(self) -> dict[str, Any]:
        """Return every setting as plain JSON; `from_dict` of it is an equal config."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def _names(section: Any) -> list[str]:
    return [item.name for item in dataclasses.fields(section)]


def _build_stages(stages: object) -> tuple[Stage, ...]:
    is_list = isinstance(stages, list | tuple) and len(stages) > 0
    require(is_list, "curriculum.stages", "a list of at least one stage", stages)
    assert isinstance(stages, Iterable)
    built = []
    for index, stage in enumerate(stages):
        place = f"curriculum.stages[{index}]"
        given = check_keys(stage, _names(Stage), place)
        for key in _names(Stage):
            require(key in given, f"{place}.{key}", "given", None)
        with prefixed(f"{place}: "):
            built.append(Stage(**given))
    return tuple(built)


def check_examples(
    config: CurriculumConfig, sizes: Mapping[str, Mapping[str, int]], *, without: str = ""
) -> None:
    """Check that every difficulty a stage uses has an example in both splits.

    Args:
        config: whose stages are checked.
        sizes: `{"train": {"simple": 10, ...}, "validation": {...}}`.
        without: what is not counted in them, for the message.

    Raises:
        ConfigError: naming stage, difficulty and split.
    """
    given = f"without {without}, " if without else ""
    for stage in config.active_stages:
        for difficulty, fraction in stage.difficulty_mix.items():
            for split in ("train", "validation"):
                if fraction > 0 and sizes.get(split, {}).get(difficulty, 0) < 1:
                    raise ConfigError(
                        f"Stage '{stage.name}' takes {fraction:g} of its examples from difficulty "
                        f"'{difficulty}', but {given}the {split} split has no example of it."
                    )
