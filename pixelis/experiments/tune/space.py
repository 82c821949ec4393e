"""What a study searches: dotted keys of the configuration, each with its range or choices."""

import math
import sys
from collections.abc import Mapping, Sequence
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
MOST_STEPS = 10**6  # of a range of numbers that are not whole


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        name: dotted, as `curriculum.rollback_threshold`.
        distribution: Optuna's.
    """

    name: str
    distribution: BaseDistribution

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """The values that every other lies between, or all of them: if these are valid, all are."""
        if isinstance(self.distribution, CategoricalDistribution):
            return tuple(self.distribution.choices)
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return (self.distribution.low, self.distribution.high)

    def contains(self, value: Any) -> bool:
        """Whether the range or the choices hold a value."""
        try:
            inner = self.distribution.to_internal_repr(value)
        except ValueError:
            return False
        return self.distribution._contains(inner)


def build_space(
    section: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, str]
) -> tuple[Parameter, ...]:
    """Read the section `space`.

    Args:
        section: dotted or nested names; of each `{low, high, log, step}` or `{choices: [...]}`.
        defaults: every key that there is, with its value; an integer's range holds integers.
        fixed: keys that may not be searched (or prefixes that end with a dot) and why.

    Raises:
        ConfigError: naming the key, the rule and the value.
    """
    found = [
        Parameter(name, _distribution(name, words, defaults, fixed))
        for name, words in flat_space(section).items()
        if words is not None
    ]
    if not found:
        raise ConfigError(f"{SECTION} must name at least one key to search, got none")
    return tuple(found)


def why_fixed(name: str, fixed: Mapping[str, str]) -> str | None:
    """Why no trial may have another value of a dotted key; None where it may.

    Args:
        name: the key.
        fixed: keys, or prefixes that end with a dot, and why.
    """
    found = (
        why
        for prefix, why in fixed.items()
        if name == prefix or (prefix.endswith(".") and name.startswith(prefix))
    )
    return next(found, None)


def changed(tree: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with the values of dotted keys in it, the given one left as it is."""
    copy: dict[str, Any] = {
        key: changed(value, {}) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }
    for name, value in params.items():
        *parents, leaf = name.split(".")
        node = copy
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return copy


def _distribution(
    name: str,
    words: Mapping[str, Any],
    defaults: Mapping[str, Any],
    fixed: Mapping[str, str],
) -> BaseDistribution:
    if not isinstance(words, Mapping):
        raise ConfigError(
            f"{SECTION}.{name} must be {{low: , high: }} or {{choices: []}}, got {words!r}"
        )
    if name not in defaults:
        raise ConfigError(unknown_key(name, f"the section {SECTION}", defaults))
    if why := why_fixed(name, fixed):
        raise ConfigError(f"{SECTION}.{name} cannot be searched: {why}")
    for word in words:
        if word not in FIELDS:
            raise ConfigError(unknown_key(word, f"{SECTION}.{name}", FIELDS))
    if "choices" in words:
        return _choices(name, words)
    if not {"low", "high"} <= set(words):
        raise ConfigError(
            f"{SECTION}.{name} must have low and high, or choices, got {', '.join(words)}"
        )
    return _range(name, words, defaults[name])


def _choices(name: str, words: Mapping[str, Any]) -> CategoricalDistribution:
    choices, place = words["choices"], f"{SECTION}.{name}"
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise ConfigError(f"{place}.choices must be a list that is not empty, got {choices!r}")
    if len(words) > 1:
        raise ConfigError(f"{place} must have choices or a range, got {', '.join(words)}")
    if any(not isinstance(each, bool | int | float | str | None) for each in choices):
        raise ConfigError(f"{place}.choices must hold plain values, got {choices!r}")
    if len({repr(each) for each in choices}) < len(choices):
        raise ConfigError(f"{place}.choices must differ, got {choices!r}")
    return CategoricalDistribution(list(choices))


def _range(name: str, words: Mapping[str, Any], default: Any) -> BaseDistribution:
    place, log = f"{SECTION}.{name}", words.get("log", False)
    if isinstance(default, bool) or not isinstance(default, int | float | None):
        raise ConfigError(f"{place} must have choices, its value is {default!r} and no number")
    whole = isinstance(default, int) or (default is None and isinstance(words["low"], int))
    numbers = {word: words[word] for word in ("low", "high", "step") if words.get(word) is not None}
    for word, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            kind = "an integer" if whole else "a number"
            raise ConfigError(f"{place}.{word} must be {kind}, got {value!r}")
        # Integers have no end, and what is beyond every float cannot be calculated with.
        if not abs(value) <= sys.float_info.max:
            raise ConfigError(f"{place}.{word} must be finite, got {str(value):.40}")
    low, high, step = words["low"], words["high"], numbers.get("step")
    if low is None or high is None or low >= high:
        raise ConfigError(f"{place}.low must be below high, got {low} >= {high}")
    if log not in (True, False):
        raise ConfigError(f"{place}.log must be true or false, got {log!r}")
    if log and low <= 0:
        raise ConfigError(f"{place}.low must be above 0 where log is true, got {low}")
    if log and step is not None:
        raise ConfigError(f"{place} must have log or step, got both")
    if step is not None and step <= 0:
        raise ConfigError(f"{place}.step must be above 0, got {step}")
    if step is not None and step > high - low:
        raise ConfigError(f"{place}.step must be at most high - low = {high - low}, got {step}")
    if not math.isfinite(high - low):
        raise ConfigError(f"{place} must have high - low that is a number, got {low} and {high}")
    for word, value in numbers.items():
        if whole and abs(value) > LARGEST:
            raise ConfigError(f"{place}.{word} must be in [-{LARGEST}, {LARGEST}], got {value}")
    if step is not None:
        _check_step(place, low, high, step, whole=whole)
    if whole:
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _check_step(place: str, low: float, high: float, step: float, *, whole: bool) -> None:
    """Refuse a step that is too small for decimal numbers, or after which `high` is never met."""
    # Asked so that a step that is no number is refused too.
    if not whole and not (high - low) / step <= MOST_STEPS:
        raise ConfigError(
            f"{place}.step must be at least (high - low) / {MOST_STEPS} = "
            f"{(high - low) / MOST_STEPS:g}, got {step}"
        )
    # As decimal numbers, as they are written: .3 is three steps of .1.
    first, last, size = (Decimal(str(each)) for each in (low, high, step))
    if rest := (last - first) % size:
        reached = last - rest
        raise ConfigError(
            f"{place}.high must be low plus whole steps of {step}, got {high}: the last one that "
            f"is reached is {int(reached) if whole else float(reached)}"
        )
