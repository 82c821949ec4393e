"""The arms of a comparison: variants of the shared curriculum settings.

All arms draw the same number of examples, in batches of the same size, from the same data. Easy
examples are short, so a curriculum sees fewer tokens in the same number of examples. Therefore the
arm `uniform_same_tokens` trains until it has seen as many tokens as `staged`.

An arm may also have any other name and say what it changes in the shared settings.
"""

import copy
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError

Settings = dict[str, Any]

NO_CHANGES: Mapping[str, Any] = MappingProxyType({})
# A folder, and a part of MLflow's names of metrics.
NAME = re.compile(r"\w([\w -]*[\w-])?", re.ASCII)
TAKEN = ("base", "tuning")  # the row of the untrained base, and the folder of the tuning
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
# Keys by which arms are measured, so that they have to be the same in all.
MEASURED = ("performance_metric", "eval_samples_per_difficulty")


def check_arms(arms: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse unknown arms that change nothing, and `uniform_same_tokens` without those it needs.

    Args:
        arms: Name of each arm -> what it changes in the section `curriculum`.

    Raises:
        ConfigError: Naming the arm and the choices.
    """
    names = list(arms)
    for name, changes in arms.items():
        if name not in ARMS and not changes:
            raise ConfigError(
                f"arms must be among {', '.join(ARMS)}, or say what they change, as in "
                f"{{{name}: {{curriculum: {{trial_steps: 10}}}}}}, got {name!r}"
            )
        if name in TAKEN or not NAME.fullmatch(name):
            raise ConfigError(
                "arms must have names of letters, digits, the characters _ - and spaces between, "
                f"other than {' and '.join(TAKEN)}, got {name!r}"
            )
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


def build_curriculum(
    arm: str,
    settings: Mapping[str, Any],
    max_steps: int,
    changes: Mapping[str, Any] = NO_CHANGES,
) -> Settings:
    """Build and check the section `curriculum` of one arm's training from the one they share.

    Args:
        arm: Name of the arm. One of `ARMS` makes its own change after `changes`, which must not
            name what it sets.
        settings: The shared section.
        max_steps: Steps of a training.
        changes: What this arm changes in it; a section in it, such as `adaptive`, is merged.

    Raises:
        ConfigError: When the settings break a rule of the curriculum, or the arm could not be
            compared with the others.
    """
    shared = CurriculumConfig.from_dict(settings)
    try:
        built = CurriculumConfig.from_dict(_change(arm, _merge(settings, changes), max_steps))
    except ConfigError as error:
        if not changes:
            raise
        raise ConfigError(f"arms.{arm} must hold valid settings: {error}") from error
    needed = {name for name, share in shared.stages[-1].difficulty_mix.items() if share > 0}
    if lacking := sorted(needed.difference(built.required_difficulties)):
        raise ConfigError(
            f"arms.{arm} must have every difficulty of the shared last stage, on which arms are "
            f"compared, in its stages: {', '.join(lacking)} is not"
        )
    for key in MEASURED:
        if (own := getattr(built, key)) != (common := getattr(shared, key)):
            raise ConfigError(
                f"arms.{arm} must have the {key} that arms are compared by, {common}, got {own}"
            )
    made = built.to_dict()
    own_keys = ("enabled", "strategy", "stages")[: 3 if ARMS.get(arm) is _uniform else 2]
    for key in own_keys if arm in ARMS else ():
        if changes.get(key, made[key]) != made[key]:
            raise ConfigError(
                f"arms.{arm} must not change curriculum.{key}, which the arm of this name sets "
                f"itself, got {changes[key]}; give the arm another name"
            )
    return made


def _merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    merged = copy.deepcopy(dict(settings))
    for key, value in changes.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            merged[key] = known | value
        else:
            merged[key] = value
    return merged


def _change(arm: str, settings: Settings, max_steps: int) -> Settings:
    """Return the settings with the change of a known arm; another arm keeps them."""
    if arm not in ARMS:
        return settings
    CurriculumConfig.from_dict(settings)
    # Each known arm sets its own strategy, so the shared one is not used.
    shared = settings | {"enabled": True, "strategy": "staged"}
    change = ARMS[arm]
    return shared | {"strategy": arm} if change is None else change(shared, max_steps)
