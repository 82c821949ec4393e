"""Performances and their changes in exact arithmetic, so that no decision depends on rounding."""

import math
import statistics
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

LARGEST_DENOMINATOR = 10**6

Examples = Mapping[str, Sequence[float]]  # difficulty -> the performance of each of its examples


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


class Change(NamedTuple):
    """The change of a performance between two evaluations of the same examples."""

    value: Fraction
    # The square of its paired standard error; None where the examples are not known one by one.
    variance: Fraction | None = None
    difficulty: str | None = None  # whose change it is; None for a mix

    @property
    def standard_error(self) -> float | None:
        """The paired standard error of the value."""
        return None if self.variance is None else math.sqrt(self.variance)


def compute_changes(
    difficulties: Sequence[str],
    strata: tuple[Mapping[str, float], Mapping[str, float]],
    examples: tuple[Examples | None, Examples | None],
) -> dict[str, Change]:
    """Compute the change of each difficulty: the mean of after - before over its examples.

    The variance of the mean is `var_d / n_d`, with the sample variance of the differences. Where
    any difficulty has fewer than two examples, before or after, the changes of all are those of
    the strata, without a variance.

    Args:
        difficulties: the difficulties that are compared.
        strata: difficulty -> performance, before and after.
        examples: performances before and after, of the same examples in the same order; None where
            they are not known one by one.

    Returns:
        Difficulty -> change.
    """
    before, after = (known or {} for known in examples)
    changes = {}
    for name in difficulties:
        pairs = zip(before.get(name, ()), after.get(name, ()), strict=False)
        differences = [as_fraction(last) - as_fraction(first) for first, last in pairs]
        if len(differences) < 2:
            old, new = ({d: as_fraction(known[d]) for d in difficulties} for known in strata)
            return {d: Change(new[d] - old[d], None, d) for d in difficulties}
        mean = statistics.mean(differences)
        variance = statistics.variance(differences, mean) / len(differences)
        changes[name] = Change(mean, variance, name)
    return changes


def compute_progress(
    old_mix: Mapping[str, float], new_mix: Mapping[str, float], changes: Mapping[str, Change]
) -> Change:
    """Return the least change of the difficulties that the new mix has more of.

    If it has more of none, return the change of the new mix.
    """
    growing = [changes[d] for d, part in new_mix.items() if part > old_mix.get(d, 0)]
    return min(growing, key=lambda change: change.value, default=_change_of(new_mix, changes))


def compute_forgetting(old_mix: Mapping[str, float], changes: Mapping[str, Change]) -> Change:
    """Return the loss of performance on the old mix: P(old mix, before) - P(old mix, after)."""
    value, variance, _ = _change_of(old_mix, changes)
    return Change(-value, variance)


def _change_of(mix: Mapping[str, float], changes: Mapping[str, Change]) -> Change:
    """Return the change of a mix's performance, with the variance sum(m_d^2 * var_d / n_d)."""
    value, variance = Fraction(0), Fraction(0)
    is_known = True
    for name, part in mix.items():
        if part > 0:
            share, change = as_fraction(part), changes[name]
            value += share * change.value
            variance += share**2 * (change.variance or 0)
            is_known = is_known and change.variance is not None
    return Change(value, variance if is_known else None)
