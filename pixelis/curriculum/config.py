"""The settings of the curriculum: every key with its default, its rule and its meaning."""

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pixelis.config import Many, Section, Text, key, suggest, validate
from pixelis.curriculum.performance import as_fraction
from pixelis.curriculum.strategies import STRATEGIES, Strategy
from pixelis.errors import ConfigError

SUM_TOLERANCE = Fraction(1, 10**6)
Metric = Literal["token_accuracy", "answer_accuracy", "likelihood", "answer_likelihood"]


class Stage(Section):
    """A name and a mix, the share of each difficulty in the training examples."""

    name: Text
    difficulty_mix: dict[Text, Annotated[float, Field(ge=0, le=1)]]

    @field_validator("difficulty_mix")
    @classmethod
    def _check_sum(cls, mix: dict[str, float]) -> dict[str, float]:
        total = sum((as_fraction(fraction) for fraction in mix.values()), Fraction(0))
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"must be fractions that sum to 1 within 1e-6, got {float(total)}")
        return mix


class CompetenceConfig(Section):
    """Strategy `competence`: c0 and T of the formula."""

    c0: float = key(0.01, "share of the examples that is in from the start", ge=0, le=1)
    steps: int | None = key(None, "steps until all are in; null: 90 % of max_steps", ge=1)


class SelfPacedConfig(Section):
    """Strategy `self_paced`: the share of the first examples, and lambda's factor."""

    initial_fraction: float = key(0.3, "share of the examples let in at first", gt=0, le=1)
    # At 1 or below lambda would not grow, and the hardest examples would never be drawn.
    growth: float = key(1.3, "factor of the loss limit, once an interval", gt=1)


class ScheduleConfig(Section):
    """Strategy `schedule`: the steps at which the stages after the first begin."""

    steps: Many[Annotated[int, Field(ge=1)]] | None = key(
        None, "steps at which the next stages begin"
    )


class AdaptiveConfig(Section):
    """Strategy `adaptive`: the bandit's least fraction and step size, and its active selection."""

    floor: float = key(0.1, "least fraction of a difficulty", ge=0, le=1)
    rate: float = key(0.3, "step size of the bandit", gt=0)
    active_fraction: float | None = key(
        None,
        "share of the scored examples with the highest losses that is drawn from; null: all",
        gt=0,
        le=1,
    )
    noise_cut: float = key(0.9, "quantile of the losses above which all is noise", gt=0, le=1)


DEFAULT_STAGES = (
    Stage(name="simple", difficulty_mix={"simple": 1.0, "medium": 0.0, "hard": 0.0}),
    Stage(name="balanced", difficulty_mix={"simple": 0.4, "medium": 0.4, "hard": 0.2}),
    Stage(name="full", difficulty_mix={"simple": 0.2, "medium": 0.3, "hard": 0.5}),
)


def _default_metric(settings: dict[str, Any]) -> Metric:
    """Return the metric by which the rule in use compares, where none is given."""
    return "answer_likelihood" if settings.get("decision") == "progress" else "token_accuracy"


class CurriculumConfig(Section):
    """The section `curriculum` of training_params.yaml."""

    enabled: bool = key(True, "false: the last stage's mix from step 0, no attempts")
    strategy: str = key("staged", f"one of {', '.join(STRATEGIES)}")
    stages: Annotated[Many[Stage], Field(min_length=1)] = key(
        DEFAULT_STAGES, "in order, easiest first; the fractions of a mix sum to 1"
    )
    decision: Literal["guide", "progress"] = key(
        "guide",
        "guide: next mix against current mix; progress (needs trial_steps > 0): each difficulty "
        "against itself",
    )
    advancement_interval: int = key(500, "steps between attempts", ge=1)
    min_performance_for_advance: float = key(0.6, "least performance on the next mix", ge=0, le=1)
    min_progress: float = key(
        0.0, "progress: least rise of a difficulty that the next mix has more of", ge=0, le=1
    )
    performance_metric: Metric = Field(
        default_factory=_default_metric,
        description="what strata and examples are measured by; if not given: token_accuracy, "
        "with decision progress answer_likelihood",
    )
    performance_window: int = key(1, "evaluations that the average is taken over", ge=1)
    eval_samples_per_difficulty: int = key(128, "largest size of a validation stratum", ge=1)
    scored_pool_size: int | None = key(1024, "examples scored by loss at a time; null: all", ge=1)
    rollback_enabled: bool = key(True, "false: an attempt always keeps")
    rollback_threshold: float = key(
        -0.05, "a delta at or below it is rolled back", ge=-1, le=0, reason="a drop is negative"
    )
    rollback_cooldown: int = key(1000, "steps without attempts after a rollback", ge=0)
    rollback_factor: float = key(2.0, "multiplies the interval after a rollback", ge=1)
    max_rollbacks: int | None = key(None, "hold after so many in a row; null: never", ge=1)
    trial_steps: int = key(0, "steps in the next stage before a decision; 0: none", ge=0)
    rollback_scope: Literal["data", "data+weights"] = key(
        "data", "data+weights (needs trial_steps > 0): adapter and optimiser go back too"
    )
    competence: CompetenceConfig = CompetenceConfig()
    self_paced: SelfPacedConfig = SelfPacedConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    adaptive: AdaptiveConfig = AdaptiveConfig()

    @field_validator("strategy")
    @classmethod
    def _check_strategy(cls, strategy: str) -> str:
        # A lookup instead of a Literal type, so that users can add strategies.
        if strategy not in STRATEGIES:
            rule = f"must be one of {', '.join(STRATEGIES)}, got {strategy!r}"
            raise ValueError(f"{rule}{suggest(strategy, STRATEGIES)}")
        return strategy

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        names = [stage.name for stage in self.stages]
        if twice := [name for name in names if names.count(name) > 1]:
            got = f"got {twice[0]!r} (used twice)"
            raise ConfigError(f"stages: their names must be different, {got}")
        if self.rollback_scope == "data+weights" and self.trial_steps == 0:
            raise ConfigError(
                "rollback_scope must be data where trial_steps is 0, got 'data+weights' "
                "(an attempt decided at once trains nothing that could be restored)"
            )
        if self.decision == "progress" and self.trial_steps == 0:
            raise ConfigError(
                "decision must be guide where trial_steps is 0, got 'progress' "
                "(it compares each difficulty before and after a trial)"
            )
        steps, needed = self.schedule.steps or (), len(self.stages) - 1
        if list(steps) != sorted(set(steps)):
            raise ConfigError(f"schedule.steps must be strictly increasing, got {list(steps)}")
        if self.strategy == "schedule" and len(steps) != needed:
            rule = f"a list of {needed} steps, one for each stage but the first"
            raise ConfigError(f"schedule.steps must be {rule}, got {list(steps)}")
        floor, most = self.adaptive.floor, len(self.required_difficulties)
        if self.strategy == "adaptive" and floor * most > 1 + 1e-9:
            rule = f"at most 1/{most}, the even share of {most} difficulties"
            raise ConfigError(f"adaptive.floor must be {rule}, got {floor}")
        return self

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build the settings from the YAML section; a key that is not given has its default.

        Raises:
            ConfigError: naming the key, the rule and the value.
        """
        return validate(cls, settings, prefix="curriculum.")

    def to_dict(self) -> dict[str, Any]:
        """Return every setting as plain JSON, from which `from_dict` builds an equal config."""
        return self.model_dump(mode="json")

    def fit_to_data(self, difficulties: Collection[str]) -> Self:
        """Return the settings for data that have these difficulties, left-out examples included.

        With the curriculum off and one difficulty, the last mix is that difficulty alone; else the
        settings are unchanged.
        """
        if self.enabled or len(difficulties) != 1:
            return self
        last = self.stages[-1]
        mix = {**dict.fromkeys(last.difficulty_mix, 0.0), **dict.fromkeys(difficulties, 1.0)}
        return self.replace(stages=(*self.stages[:-1], last.replace(difficulty_mix=mix)))

    @property
    def strategy_class(self) -> type[Strategy]:
        """The strategy in use; if the curriculum is off, the fixed mix of the last stage."""
        return STRATEGIES[self.strategy] if self.enabled else Strategy

    @property
    def strategy_label(self) -> str:
        """The strategy in use, as text for a person."""
        return self.strategy if self.enabled else "fixed mix"

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        """The stages of a training; if the curriculum is off, only the last one."""
        return self.stages if self.enabled else self.stages[-1:]

    @property
    def difficulties(self) -> tuple[str, ...]:
        """Every difficulty that a stage names, in the order of first mention."""
        return tuple({name: None for stage in self.stages for name in stage.difficulty_mix})

    @property
    def required_difficulties(self) -> tuple[str, ...]:
        """Every difficulty that an active stage uses: each evaluation measures all of them."""
        mixes = [stage.difficulty_mix for stage in self.active_stages]
        return tuple(name for name in self.difficulties if any(mix.get(name, 0) for mix in mixes))


def check_examples(
    config: CurriculumConfig, sizes: Mapping[str, Mapping[str, int]], remedy: str = ""
) -> None:
    """Check that each place has an example of every difficulty that an active stage uses.

    Args:
        config: the configuration with the stages.
        sizes: place, as text for the message -> difficulty -> number of examples:
            `{"the train split": {"simple": 10, ...}, "the validation split": {...}}`.
        remedy: a sentence for the end of the message.

    Raises:
        ConfigError: naming stage, difficulty and place.
    """
    for stage in config.active_stages:
        for difficulty, fraction in stage.difficulty_mix.items():
            for place, counts in sizes.items():
                if fraction > 0 and counts.get(difficulty, 0) < 1:
                    raise ConfigError(
                        f"Stage '{stage.name}' takes {fraction:g} of its examples from difficulty "
                        f"'{difficulty}', but {place} has no example of it. {remedy}".rstrip()
                    )
