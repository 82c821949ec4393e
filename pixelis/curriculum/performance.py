"""The performance of a mix in exact arithmetic, so that no decision depends on rounding."""

import math
from collections.abc import Mapping
from fractions import Fraction

LARGEST_DENOMINATOR = 10**6


def as_fraction(value: float) -> Fraction:
    """Return the ratio that a float approximates: 0.05 is 1/20, 1/3 is one third.

    In binary, `0.5 * 0.9 + 0.5 * 0.8 - 0.9` is -0.04999999999999993: a drop of exactly the
    threshold would be kept or rolled back by accident. If no simple ratio rounds to the float, its
    shortest decimal form is used.
    """
    simple = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
    return simple if float(simple) == value else Fraction(str(value))


def compute_performance(mix: Mapping[str, float], strata: Mapping[str, float]) -> Fraction:
    """Compute `sum(mix[d] * strata[d])`; a difficulty with fraction 0 need not be in the strata."""
    return sum(
        (as_fraction(part) * as_fraction(strata[d]) for d, part in mix.items() if part > 0),
        Fraction(0),
    )


def compute_delta_standard_error(
    old_mix: Mapping[str, float],
    new_mix: Mapping[str, float],
    strata: Mapping[str, float],
    counts: Mapping[str, int],
) -> float:
    """Compute `sqrt(sum((w'_d - w_d)^2 s_d (1 - s_d) / n_d))`, the noise of a measured delta."""
    variance = Fraction(0)
    for difficulty in {**old_mix, **new_mix}:
        old, new = old_mix.get(difficulty, 0.0), new_mix.get(difficulty, 0.0)
        shift = as_fraction(new) - as_fraction(old)
        if shift:
            share = as_fraction(strata[difficulty])
            variance += shift**2 * share * (1 - share) / counts[difficulty]
    return math.sqrt(variance)
