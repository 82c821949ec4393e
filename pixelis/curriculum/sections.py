"""The settings of single strategies: each section with its defaults and its rules."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pixelis.curriculum.checks import is_integer, is_number, require


def store_floats(config: Any) -> None:
    """Store an int where a float is meant as a float: stored alike, it also compares alike."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.type in (float, float | None) and value is not None:
            object.__setattr__(config, item.name, float(value))


@dataclass(frozen=True)
class CompetenceConfig:
    """Strategy `competence`: c0 and T of the formula; T null is 90 % of max_steps."""

    c0: float = 0.01
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check both."""
        require(is_number(self.c0, 0, 1), "competence.c0", "in [0, 1]", self.c0)
        is_valid = self.steps is None or is_integer(self.steps, 1)
        require(is_valid, "competence.steps", "null or an integer >= 1", self.steps)
        store_floats(self)


@dataclass(frozen=True)
class SelfPacedConfig:
    """Strategy `self_paced`: the first share let in, and lambda's factor."""

    initial_fraction: float = 0.3
    growth: float = 1.3

    def __post_init__(self) -> None:
        """Check both."""
        first, growth = self.initial_fraction, self.growth
        is_valid = is_number(first, 0, 1) and first > 0
        require(is_valid, "self_paced.initial_fraction", "in (0, 1]", first)
        # At 1 or below lambda would stand still, and the hardest examples would never be let in.
        require(is_number(growth, 1) and growth > 1, "self_paced.growth", "a number > 1", growth)
        store_floats(self)


@dataclass(frozen=True)
class ScheduleConfig:
    """Strategy `schedule`: the steps at which the stages after the first begin."""

    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the steps rise."""
        if self.steps is None:
            return
        steps, rule = self.steps, "null or a list of strictly increasing integers >= 1"
        require(isinstance(steps, list | tuple), "schedule.steps", rule, steps)
        is_rising = all(is_integer(step, 1) for step in steps) and all(
            later > earlier for earlier, later in zip(steps, steps[1:], strict=False)
        )
        require(is_rising, "schedule.steps", rule, steps)
        object.__setattr__(self, "steps", tuple(steps))


@dataclass(frozen=True)
class AdaptiveConfig:
    """Strategy `adaptive`: the bandit's least fraction and step size, and its active selection."""

    floor: float = 0.1
    rate: float = 0.3
    active_fraction: float | None = None
    noise_cut: float = 0.9

    def __post_init__(self) -> None:
        """Check all."""
        require(is_number(self.floor, 0, 1), "adaptive.floor", "in [0, 1]", self.floor)
        is_valid = is_number(self.rate, 0) and self.rate > 0
        require(is_valid, "adaptive.rate", "a number > 0", self.rate)
        share, cut = self.active_fraction, self.noise_cut
        is_valid = share is None or (is_number(share, 0, 1) and share > 0)
        require(is_valid, "adaptive.active_fraction", "null or in (0, 1]", share)
        require(is_number(cut, 0, 1) and cut > 0, "adaptive.noise_cut", "in (0, 1]", cut)
        store_floats(self)


SECTIONS: dict[str, Any] = {
    "competence": CompetenceConfig,
    "self_paced": SelfPacedConfig,
    "schedule": ScheduleConfig,
    "adaptive": AdaptiveConfig,
}
