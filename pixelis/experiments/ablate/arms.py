"""What is compared: each arm is the shared curriculum settings with what makes it another one.

All arms draw the same number of examples, in batches of the same size, from the same data; but
for `uniform_same_tokens`, which is as long as it takes to train on the tokens of `staged`: easy
examples are short, so that a curriculum sees fewer tokens in as many examples.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError

Settings = dict[str, Any]

UNIFORM = "uniform"
STAGED = "staged"
SAME_TOKENS = "uniform_same_tokens"


def _uniform(settings: Settings, max_steps: int) -> Settings:
    """Everything at once, in equal shares: what a training without a curriculum draws."""
    names = CurriculumConfig.from_dict(settings).required_difficulties
    share = 1 / len(names)
    mix = dict.fromkeys(names, share)
    return settings | {"enabled": False, "stages": [{"name": UNIFORM, "difficulty_mix": mix}]}


def _staged(settings: Settings, max_steps: int) -> Settings:
    """The stages, entered when the model is ready, with rollbacks."""
    return settings | {"strategy": "staged"}


def _schedule(settings: Settings, max_steps: int) -> Settings:
    """The same stages at fixed steps: those given, else equal parts of the training."""
    given = (settings.get("schedule") or {}).get("steps")
    num_stages = len(CurriculumConfig.from_dict(settings).stages)
    if given and max(given) >= max_steps:
        raise ConfigError(
            f"curriculum.schedule.steps must be below training.max_steps {max_steps}, got {given} "
            "(the last stage would never begin)"
        )
    if not given and max_steps < num_stages:
        raise ConfigError(
            f"training.max_steps must be >= {num_stages}, the number of stages, got {max_steps} "
            "(arms with fixed steps give each stage an equal part)"
        )
    steps = given or [max_steps * i // num_stages for i in range(1, num_stages)]
    return settings | {"strategy": "schedule", "schedule": {"steps": steps}}


def _reverse(settings: Settings, max_steps: int) -> Settings:
    """Hard first: each stage's shares the other way round, at fixed steps; the last stage stays.

    All arms with stages end in the same mix, and so does this one.
    """
    names = list(CurriculumConfig.from_dict(settings).difficulties)
    other = dict(zip(names, reversed(names), strict=True))
    *stages, last = _plain_stages(settings)
    turned = [
        {
            "name": f"reversed {stage['name']}",
            "difficulty_mix": {
                name: stage["difficulty_mix"].get(other[name], 0.0) for name in names
            },
        }
        for stage in stages
    ]
    return _schedule(settings, max_steps) | {"stages": [*turned, last]}


def _of_strategy(name: str) -> Callable[[Settings, int], Settings]:
    def build(settings: Settings, max_steps: int) -> Settings:
        return settings | {"strategy": name}

    return build


ARMS: dict[str, Callable[[Settings, int], Settings]] = {
    UNIFORM: _uniform,
    SAME_TOKENS: _uniform,
    STAGED: _staged,
    "schedule": _schedule,
    "competence": _of_strategy("competence"),
    "self_paced": _of_strategy("self_paced"),
    "adaptive": _of_strategy("adaptive"),
    "reverse": _reverse,
}


def check_arms(names: Iterable[str]) -> None:
    """Check that every arm is known, and that what it is matched to is there.

    Raises:
        ConfigError: naming the arm and the choices.
    """
    names = list(names)
    for name in names:
        if name not in ARMS:
            raise ConfigError(f"arms must be among {', '.join(ARMS)}, got {name!r}")
    if SAME_TOKENS in names and not {UNIFORM, STAGED} <= set(names):
        raise ConfigError(
            f"arms with {SAME_TOKENS} must hold {UNIFORM} and {STAGED}, got {names} "
            f"(its length follows from the tokens of both)"
        )


def matched_steps(max_steps: int, num_tokens: int, wanted: int) -> int:
    """Steps after which a uniform mix has seen as many tokens as another arm.

    Args:
        max_steps: of the training with the uniform mix that was measured.
        num_tokens: that it was trained on.
        wanted: tokens of the other arm.
    """
    return max(1, round(max_steps * wanted / num_tokens))


def build_curriculum(arm: str, settings: Mapping[str, Any], max_steps: int) -> Settings:
    """The section `curriculum` of one arm's training, checked.

    Args:
        arm: a name in `ARMS`.
        settings: the section that all arms begin from.
        max_steps: optimiser steps of each training.

    Raises:
        ConfigError: when the settings break a rule of the curriculum.
    """
    CurriculumConfig.from_dict(settings)
    # Each arm has its own strategy, whatever the shared settings say.
    shared = copy.deepcopy(dict(settings)) | {"enabled": True, "strategy": "staged"}
    built = ARMS[arm](shared, max_steps)
    return CurriculumConfig.from_dict(built).to_dict()


def _plain_stages(settings: Settings) -> list[Settings]:
    stages: list[Settings] = CurriculumConfig.from_dict(settings).to_dict()["stages"]
    return stages
