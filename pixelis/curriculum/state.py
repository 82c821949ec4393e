"""The state of a curriculum between steps, and its conversion to JSON and back."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pixelis.curriculum.checks import check_keys


@dataclass(frozen=True)
class Evaluation:
    """The strata that were measured with the weights of one step."""

    step: int
    strata: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """An open trial of the next stage: the step, interval and strata it began with."""

    step: int
    interval: int
    strata: dict[str, float]


@dataclass
class CurriculumState:
    """The state that strategies decide on; `memory` is a strategy's own, plain JSON."""

    stage_index: int
    interval: int
    steps: int = 0
    steps_since_advance: int = 0
    cooldown_until: int = 0
    rollback_count: int = 0
    rollbacks_in_a_row: int = 0
    visit: int = 1
    history: list[Evaluation] = field(default_factory=list)
    trial: Trial | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON, a deep copy."""
        plain = asdict(self)
        history = plain["history"]
        plain["history"] = [evaluation["strata"] for evaluation in history]
        plain["history_steps"] = [evaluation["step"] for evaluation in history]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "CurriculumState":
        """Build the state from the result of `to_dict`.

        Raises:
            ConfigError: when a key is missing or unknown, as in a state of another version.
        """
        keys = cls(0, 1).to_dict()
        values = copy.deepcopy(dict(check_keys(plain, keys, "curriculum state", needed=keys)))
        steps, trial = values.pop("history_steps"), values["trial"]
        pairs = zip(steps, values["history"], strict=True)
        values["history"] = [Evaluation(step, strata) for step, strata in pairs]
        values["trial"] = None if trial is None else Trial(**trial)
        return cls(**values)
