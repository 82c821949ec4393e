"""What the curriculum remembers between steps, and its way to JSON and back."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelis.curriculum.checks import check_strata, is_integer, require


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
        """Return the state as plain JSON that shares nothing with it."""
        trial = self.trial
        plain: dict[str, Any] = {name: getattr(self, name) for name in LEAST}
        plain["history"] = [dict(evaluation.strata) for evaluation in self.history]
        plain["history_steps"] = [evaluation.step for evaluation in self.history]
        plain["trial"] = None if trial is None else copy.deepcopy(trial.__dict__)
        plain["memory"] = copy.deepcopy(self.memory)
        return plain

    @classmethod
    def from_dict(
        cls, plain: Mapping[str, Any], num_stages: int, required: Iterable[str]
    ) -> "CurriculumState":
        """Build the state from `to_dict` of one, checking that it fits the configuration."""
        required = list(required)
        values: dict[str, Any] = {}
        for name, least in LEAST.items():
            value = values[name] = plain.get(name)
            rule = f"an integer >= {least}"
            require(is_integer(value, least), f"curriculum state: {name}", rule, value)
        index = values["stage_index"]
        rule = f"below {num_stages}, the number of stages"
        require(index < num_stages, "curriculum state: stage_index", rule, index)
        history, steps = plain.get("history"), plain.get("history_steps")
        is_paired = (
            isinstance(history, list)
            and isinstance(steps, list)
            and len(history) == len(steps)
            and all(is_integer(step, 0) for step in steps)
        )
        rule = "a list of strata, with as many history_steps"
        require(is_paired, "curriculum state: history", rule, history)
        assert isinstance(history, list) and isinstance(steps, list)
        values["history"] = [
            Evaluation(step, check_strata("curriculum state: history", strata, required))
            for step, strata in zip(steps, history, strict=True)
        ]
        values["trial"] = _load_trial(plain.get("trial"), index < num_stages - 1, required)
        memory = plain.get("memory")
        require(isinstance(memory, dict), "curriculum state: memory", "a mapping", memory)
        values["memory"] = copy.deepcopy(memory)
        return cls(**values)


# The whole numbers of the state with their least values.
LEAST = {
    "stage_index": 0,
    "interval": 1,
    "steps": 0,
    "steps_since_advance": 0,
    "cooldown_until": 0,
    "rollback_count": 0,
    "rollbacks_in_a_row": 0,
    "visit": 1,
}
STATE_KEYS = (*LEAST, "history", "history_steps", "trial", "memory")


def _load_trial(trial: object, has_next_stage: bool, required: list[str]) -> Trial | None:
    if trial is None:
        return None
    is_whole = (
        isinstance(trial, Mapping)
        and set(trial) == {"step", "interval", "strata"}
        and is_integer(trial["step"], 0)
        and is_integer(trial["interval"], 1)
        and has_next_stage
    )
    rule = "null or the step, interval and strata of a trial of a next stage"
    require(is_whole, "curriculum state: trial", rule, trial)
    assert isinstance(trial, Mapping)
    strata = check_strata("curriculum state: trial", trial["strata"], required)
    return Trial(trial["step"], trial["interval"], strata)
