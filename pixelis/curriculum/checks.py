"""The rules for mixes, strata and restored states, with one message shape for all."""

import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from pixelis.curriculum.performance import as_fraction
from pixelis.errors import ConfigError

SUM_TOLERANCE = Fraction(1, 10**6)


def require(is_met: bool, key: str, rule: str, value: object, note: str = "") -> None:
    """Raise a `ConfigError` that names the key, the rule and the value, unless the rule is met."""
    if not is_met:
        raise ConfigError(f"{key} must be {rule}, got {value!r}" + (f" ({note})" if note else ""))


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Return whether a value is a finite int or float in [low, high]; a bool is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Not math.isfinite, which overflows on an int beyond a float's range.
    return abs(value) <= sys.float_info.max and low <= value <= high


def is_integer(value: object, low: int) -> bool:
    """Return whether a value is an int >= low; a bool and 500.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def check_keys(
    settings: object, valid: Iterable[str], path: str, needed: Iterable[str] = ()
) -> Mapping[str, Any]:
    """Return a mapping if all of its keys are valid and no needed key is missing."""
    require(isinstance(settings, Mapping), path, "a mapping of settings", settings)
    assert isinstance(settings, Mapping)
    valid = list(valid)
    for key in settings:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ConfigError(
                f"Unknown key '{path}.{key}'.{hint} Valid keys here: {', '.join(valid)}."
            )
    for key in needed:
        require(key in settings, f"{path}: {key}", "given", None)
    return settings


def check_mix(key: str, mix: object) -> dict[str, float]:
    """Return a mix with float fractions if they are >= 0 and sum to 1."""
    is_mapping = isinstance(mix, Mapping) and len(mix) > 0
    require(is_mapping, key, "a mapping of difficulty to fraction with at least one entry", mix)
    assert isinstance(mix, Mapping)
    for difficulty, fraction in mix.items():
        is_name = isinstance(difficulty, str) and difficulty.strip() != ""
        require(is_name, f"a difficulty in {key}", "a non-empty string", difficulty)
        rule = "a number >= 0, and at most 1"
        require(is_number(fraction, 0, 1), f"{key}: the fraction of '{difficulty}'", rule, fraction)
    total = sum((as_fraction(fraction) for fraction in mix.values()), Fraction(0))
    is_whole = abs(total - 1) <= SUM_TOLERANCE
    require(is_whole, key, "fractions that sum to 1 within 1e-6", float(total), "the sum")
    return {difficulty: float(fraction) for difficulty, fraction in mix.items()}


def check_strata(key: str, strata: object, required: Iterable[str]) -> dict[str, float]:
    """Return strata as floats if no required difficulty is missing and all are in [0, 1]."""
    for difficulty, performance in _check_required(key, strata, required, "performance").items():
        is_share = is_number(performance, 0, 1)
        require(is_share, f"{key}: the performance on '{difficulty}'", "in [0, 1]", performance)
    assert isinstance(strata, Mapping)
    return {difficulty: float(performance) for difficulty, performance in strata.items()}


def check_counts(counts: object, required: Iterable[str]) -> dict[str, int]:
    """Return the sizes of the strata if every required difficulty has at least one example."""
    checked = dict(_check_required("counts", counts, required, "count"))
    for difficulty, count in checked.items():
        rule = "an integer >= 1"
        require(is_integer(count, 1), f"counts: the count of '{difficulty}'", rule, count)
    return checked


def _check_required(
    key: str, values: object, required: Iterable[str], what: str
) -> Mapping[str, Any]:
    require(isinstance(values, Mapping), key, f"a mapping of difficulty to {what}", values)
    assert isinstance(values, Mapping)
    for difficulty in required:
        rule = f"given for every difficulty that a stage uses: '{difficulty}' is missing"
        require(difficulty in values, key, rule, dict(values))
    return values
