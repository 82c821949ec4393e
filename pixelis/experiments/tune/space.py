"""The search space: dotted keys of the configuration, each with its range or choices."""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
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


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        name: Dotted key, such as `curriculum.rollback_threshold`.
        distribution: Optuna's distribution of its values.
    """

    name: str
    distribution: BaseDistribution

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Return the ends of a range, or all choices: if these are valid, every value is."""
        if isinstance(self.distribution, CategoricalDistribution):
            return tuple(self.distribution.choices)
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return (self.distribution.low, self.distribution.high)

    @property
    def integers(self) -> Iterable[int]:
        """Return every integer that an integer key may take."""
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            return [value for value in kind.choices if type(value) is int]
        assert isinstance(kind, IntDistribution)
        return range(kind.low, kind.high + 1, 1 if kind.log else kind.step)

    def contains(self, value: Any) -> bool:
        """Return whether the range or the choices hold a value."""
        try:
            inner = self.distribution.to_internal_repr(value)
        except ValueError:
            return False
        return self.distribution._contains(inner)


def build_space(
    section: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, str]
) -> tuple[Parameter, ...]:
    """Build the search space from the section `space`.

    Args:
        section: Dotted or nested key -> `{low, high, log, step}` or `{choices: [...]}`.
        defaults: Every existing key with its value; an integer's range holds integers.
        fixed: Keys that may not be searched (or prefixes that end with a dot) -> the reason.

    Raises:
        ConfigError: Naming the key, the rule and the value.
    """
    space = [
        Parameter(name, _distribution(name, fields, defaults, fixed))
        for name, fields in flat_space(section).items()
        if fields is not None
    ]
    if not space:
        raise ConfigError(f"{SECTION} must name at least one key to search, got none")
    return tuple(space)


def reason_fixed(name: str, fixed: Mapping[str, str]) -> str | None:
    """Return why no trial may change a dotted key, or None if trials may change it."""
    for prefix, reason in fixed.items():
        if name == prefix or (prefix.endswith(".") and name.startswith(prefix)):
            return reason
    return None


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


def _distribution(
    name: str,
    fields: Mapping[str, Any],
    defaults: Mapping[str, Any],
    fixed: Mapping[str, str],
) -> BaseDistribution:
    key = f"{SECTION}.{name}"
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{key} must be {{low: , high: }} or {{choices: []}}, got {fields!r}")
    if name not in defaults:
        raise ConfigError(unknown_key(name, f"the section {SECTION}", defaults))
    if reason := reason_fixed(name, fixed):
        raise ConfigError(f"{key} cannot be searched: {reason}")
    for field in fields:
        if field not in FIELDS:
            raise ConfigError(unknown_key(field, key, FIELDS))
    if "choices" in fields:
        return _choices(key, fields)
    if not {"low", "high"} <= set(fields):
        raise ConfigError(f"{key} must have low and high, or choices, got {', '.join(fields)}")
    return _range(key, fields, defaults[name])


def _choices(key: str, fields: Mapping[str, Any]) -> CategoricalDistribution:
    choices = fields["choices"]
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise ConfigError(f"{key}.choices must be a list that is not empty, got {choices!r}")
    if len(fields) > 1:
        raise ConfigError(f"{key} must have choices or a range, got {', '.join(fields)}")
    if any(not isinstance(each, bool | int | float | str | None) for each in choices):
        raise ConfigError(f"{key}.choices must hold plain values, got {choices!r}")
    if len({repr(each) for each in choices}) < len(choices):
        raise ConfigError(f"{key}.choices must differ, got {choices!r}")
    return CategoricalDistribution(list(choices))


def _range(key: str, fields: Mapping[str, Any], default: Any) -> BaseDistribution:
    log = fields.get("log", False)
    if isinstance(default, bool) or not isinstance(default, int | float | None):
        raise ConfigError(f"{key} must have choices, its value is {default!r} and no number")
    is_whole = isinstance(default, int) or (default is None and isinstance(fields["low"], int))
    numbers = {
        field: fields[field] for field in ("low", "high", "step") if fields.get(field) is not None
    }
    for field, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
            kind = "an integer" if is_whole else "a number"
            raise ConfigError(f"{key}.{field} must be {kind}, got {value!r}")
        # Python's integers are unlimited, but larger ones cannot be converted to floats.
        if not abs(value) <= sys.float_info.max:
            raise ConfigError(f"{key}.{field} must be finite, got {str(value):.40}")
    low, high, step = fields["low"], fields["high"], numbers.get("step")
    if low is None or high is None or low >= high:
        raise ConfigError(f"{key}.low must be below high, got {low} >= {high}")
    if log not in (True, False):
        raise ConfigError(f"{key}.log must be true or false, got {log!r}")
    if log and low <= 0:
        raise ConfigError(f"{key}.low must be above 0 where log is true, got {low}")
    if log and step is not None:
        raise ConfigError(f"{key} must have log or step, got both")
    if not math.isfinite(high - low):
        raise ConfigError(f"{key} must have high - low that is a number, got {low} and {high}")
    for field, value in numbers.items():
        if is_whole and abs(value) > LARGEST:
            raise ConfigError(f"{key}.{field} must be in [-{LARGEST}, {LARGEST}], got {value}")
    if step is not None:
        _check_step(key, low, high, step, is_whole=is_whole)
    if is_whole:
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _check_step(key: str, low: float, high: float, step: float, *, is_whole: bool) -> None:
    """Refuse a step that is too small, or whose multiples do not reach `high`."""
    if step <= 0:
        raise ConfigError(f"{key}.step must be above 0, got {step}")
    if step > high - low:
        raise ConfigError(f"{key}.step must be at most high - low = {high - low}, got {step}")
    # `not ... <=` also refuses a step that is not a number.
    if not is_whole and not (high - low) / step <= MOST_STEPS:
        raise ConfigError(
            f"{key}.step must be at least (high - low) / {MOST_STEPS} = "
            f"{(high - low) / MOST_STEPS:g}, got {step}"
        )
    # Decimal keeps the numbers as they are written, so that .3 is three steps of .1.
    first, last, size = (Decimal(str(each)) for each in (low, high, step))
    if rest := (last - first) % size:
        reached = last - rest
        raise ConfigError(
            f"{key}.high must be low plus whole steps of {step}, got {high}: the last one that "
            f"is reached is {int(reached) if is_whole else float(reached)}"
        )
