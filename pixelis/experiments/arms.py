"""The arms of a comparison: variants of the shared curriculum settings.

All arms draw the same number of examples, in batches of the same size, from the same data. Easy
examples are short, so a curriculum sees fewer tokens in the same number of examples. Therefore the
arm `uniform_same_tokens` trains until it has seen as many tokens as `staged`.
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
    """Draw all difficulties in equal shares from the first step: no curriculum."""
    names = CurriculumConfig.from_dict(settings).required_difficulties
    share = 1 / len(names)
    mix = dict.fromkeys(names, share)
    return settings | {"enabled": False, "stages": [{"name": UNIFORM, "difficulty_mix": mix}]}


def _schedule(settings: Settings, max_steps: int) -> Settings:
    """Enter the same stages at fixed steps, by default after equal parts of the training."""
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
    """Reverse the shares of each stage but the last, so that hard comes first, at fixed steps."""
    config = CurriculumConfig.from_dict(settings)
    names = list(config.difficulties)
    *stages, last = config.to_dict()["stages"]
    turned = []
    for stage in stages:
        shares = [stage["difficulty_mix"].get(name, 0.0) for name in reversed(names)]
        mix = dict(zip(names, shares, strict=True))
        turned.append({"name": f"reversed {stage['name']}", "difficulty_mix": mix})
    return _schedule(settings, max_steps) | {"stages": [*turned, last]}


# Without a function, an arm is the strategy of its name.
ARMS: dict[str, Callable[[Settings, int], Settings] | None] = {
    UNIFORM: _uniform,
    SAME_TOKENS: _uniform,
    STAGED: None,
    "schedule": _schedule,
    "competence": None,
    "self_paced": None,
    "adaptive": None,
    "reverse": _reverse,
}


def check_arms(names: Iterable[str]) -> None:
    """Refuse unknown arms, and `uniform_same_tokens` without the arms that it needs.

    Raises:
        ConfigError: Naming the arm and the choices.
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
    """Return the steps after which a uniform mix has seen the `wanted` tokens of another arm.

    A training with the uniform mix has seen `num_tokens` in `max_steps`.
    """
    return max(1, round(max_steps * wanted / num_tokens))


def build_curriculum(arm: str, settings: Mapping[str, Any], max_steps: int) -> Settings:
    """Build and check the section `curriculum` of one arm's training from the one they share.

    Raises:
        ConfigError: When the settings break a rule of the curriculum.
    """
    CurriculumConfig.from_dict(settings)
    # Each arm sets its own strategy, so the shared one is not used.
    shared = copy.deepcopy(dict(settings)) | {"enabled": True, "strategy": "staged"}
    change = ARMS[arm]
    built = shared | {"strategy": arm} if change is None else change(shared, max_steps)
    return CurriculumConfig.from_dict(built).to_dict()
