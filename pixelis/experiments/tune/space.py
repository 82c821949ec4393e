"""The search space: dotted keys of the configuration, each with its range or choices."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pixelis.config import FIELDS, SECTION, flat_space, unknown_key
from pixelis.errors import ConfigError

Scalar = bool | int | float | str | None

LARGEST = 2**31 - 1
MOST_STEPS = 10**6  # steps in a range of decimal numbers


def end_values(distribution: BaseDistribution) -> Sequence[Any]:
    """Return the ends of a range, or all choices: if these are valid, every value is."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return (distribution.low, distribution.high)


def all_values(distribution: BaseDistribution) -> Sequence[Any]:
    """Return every value of an integer's range, or all choices."""
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    return end_values(distribution)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a range or choices hold a value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def build_space(
    section: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, str]
) -> dict[str, BaseDistribution]:
    """Build the search space, dotted key -> distribution, from the section `space`.

    Args:
        section: Dotted or nested key -> `{low, high, log, step}` or `{choices: [...]}`.
        defaults: Every existing key with its value; an integer's range holds integers.
        fixed: Keys that may not be searched -> the reason.

    Raises:
        ConfigError: Naming the key, the rule and the value.
    """
    space = {}
    for name, fields in flat_space(section).items():
        if fields is None:
            continue
        if name not in defaults:
            raise ConfigError(unknown_key(name, f"the section {SECTION}", defaults))
        if name in fixed:
            raise ConfigError(f"{SECTION}.{name} cannot be searched: {fixed[name]}")
        space[name] = _distribution(f"{SECTION}.{name}", fields, defaults[name])
    if not space:
        raise ConfigError(f"{SECTION} must name at least one key to search, got none")
    return space


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and values of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_values(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a nested mapping with new values for dotted keys."""
    copy: dict[str, Any] = {
        key: with_values(value, {}) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }
    for name, value in values.items():
        *parents, leaf = name.split(".")
        node = copy
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return copy


def _distribution(key: str, fields: Any, default: Any) -> BaseDistribution:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{key} must be {{low: , high: }} or {{choices: []}}, got {fields!r}")
    for field in fields:
        if field not in FIELDS:
            raise ConfigError(unknown_key(field, key, FIELDS))
    if set(fields) == {"choices"}:
        return _choices(key, fields["choices"])
    if "choices" in fields or not {"low", "high"} <= set(fields):
        raise ConfigError(f"{key} must have low and high, or choices, got {', '.join(fields)}")
    if isinstance(default, bool) or not isinstance(default, int | float | None):
        raise ConfigError(f"{key} must have choices, its value is {default!r} and no number")
    return _range(key, fields, default)


def _choices(key: str, choices: Any) -> CategoricalDistribution:
    is_list = isinstance(choices, Sequence) and not isinstance(choices, str)
    is_plain = is_list and all(isinstance(each, Scalar) for each in choices)
    if not choices or not is_plain or len({repr(each) for each in choices}) < len(choices):
        raise ConfigError(
            f"{key}.choices must be a list of plain values, each once, got {choices!r}"
        )
    return CategoricalDistribution(list(choices))


def _range(key: str, fields: Mapping[str, Any], default: int | float | None) -> BaseDistribution:
    low, high, step = fields["low"], fields["high"], fields.get("step")
    is_whole = isinstance(default, int) or (default is None and isinstance(low, int))
    log = fields.get("log", False)
    numbers = {"low": low, "high": high} | ({} if step is None else {"step": step})
    for field, value in numbers.items():
        is_number = isinstance(value, int if is_whole else int | float)
        if isinstance(value, bool) or not is_number or not abs(value) <= LARGEST:
            kind = "an integer" if is_whole else "a number"
            raise ConfigError(
                f"{key}.{field} must be {kind} in [-{LARGEST}, {LARGEST}], got {value!r:.40}"
            )
    if log not in (True, False):
        raise ConfigError(f"{key}.log must be true or false, got {log!r}")
    if step is not None and not is_whole and 0 < step < (high - low) / MOST_STEPS:
        raise ConfigError(f"{key}.step must make at most {MOST_STEPS} steps, got {step}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna only warns of steps that do not reach `high`
            if is_whole:
                return IntDistribution(low, high, log=log, step=1 if step is None else step)
            return FloatDistribution(low, high, log=log, step=step)
    except (ValueError, UserWarning) as error:
        raise ConfigError(f"{key} must be a range of Optuna: {error}") from error
