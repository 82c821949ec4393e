"""Compute scores with 95 % intervals: proportions, means, and differences of paired proportions.

All are formulas without random draws. The interval of a proportion has a width even at 0 and 100 %.
There is none for fewer than `MIN_EXAMPLES` examples, nor for the mean of equal values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import bisect
from scipy.stats import norm, sem
from scipy.stats import t as student

MIN_EXAMPLES = 10
LEVEL = 0.95
Z = float(norm.ppf((1 + LEVEL) / 2))

# Numerator and denominator of one example in a ratio; None if the ratio is not defined for it.
Fraction = tuple[float, float] | None


@dataclass(frozen=True)
class Score:
    """A ratio or mean with its 95 % interval, and the number of examples that define it.

    Accuracies are in [0, 1], gains in [-1, 1]. The interval is None if there are too few examples,
    or if the values of a mean are equal.
    """

    value: float
    interval: tuple[float, float] | None
    num: int

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The ends of the interval, None without one."""
        return self.interval or (None, None)

    def metrics(self, name: str) -> dict[str, float]:
        """Return the value as `name`, and the ends, if any, as `name_low` and `name_high`."""
        low, high = self.ends
        values = {name: self.value, f"{name}_low": low, f"{name}_high": high}
        return {key: value for key, value in values.items() if value is not None}


def share_score(fractions: Sequence[Fraction]) -> Score | None:
    """Return the sum of numerators over the sum of denominators, with its 95 % interval.

    Each numerator is in [0, its denominator]. The interval is Wilson's (1927) score interval. For
    right and wrong answers, its sample size is the number of examples. Calls of one rollout are not
    independent: their sample size is share * (1 - share) / variance, the effective sample size
    (Kish 1965; with Wilson's interval: Dean and Pagano 2015), where the variance is that of a ratio
    over examples. It is at most the number of calls. If all examples have the same ratio, the
    variance is 0, and the number of examples is used instead.

    Returns:
        The ratio, with the number of examples whose denominator is not 0; None if there are none.
    """
    pairs = np.asarray([f for f in fractions if f is not None and f[1]], dtype=np.float64)
    num = len(pairs)
    if not num:
        return None
    parts, wholes = pairs.T
    whole, size = float(wholes.sum()), float(num)
    share = float(parts.sum()) / whole
    if np.ptp(parts / wholes) > 0:
        variance = float(((parts - share * wholes) ** 2).sum()) / whole**2
        size = min(share * (1 - share) / variance, whole)
    return Score(share, _wilson(share, size) if num >= MIN_EXAMPLES else None, num)


def _wilson(share: float, size: float) -> tuple[float, float]:
    centre, scale = share + Z**2 / (2 * size), 1 + Z**2 / size
    half = Z * math.sqrt(share * (1 - share) / size + (Z / (2 * size)) ** 2)
    # The outer min and max are for rounding: at 0 the lower end is 0, not 1e-18.
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return min(share, low), max(share, high)


def mean_score(values: Sequence[float]) -> Score:
    """Return the mean of at least one value >= 0 without an upper limit, with Student's t interval.

    Equal values have no interval: nothing tells how far they vary.
    """
    num = len(values)
    interval = None
    mean = float(np.mean(values))
    if num >= MIN_EXAMPLES and np.ptp(values) > 0:
        low, high = student.interval(LEVEL, num - 1, loc=mean, scale=sem(values))
        interval = max(0.0, float(low)), float(high)
    return Score(mean, interval, num)


def difference_score(num_gained: int, num_lost: int, num: int) -> Score:
    """Return the difference of two paired proportions, with Tango's (1998) score interval.

    It contains the differences that the two-sided score test for McNemar's table does not reject at
    5 % (compared with others by Fagerland et al. 2014). The exact test of `Comparison` is stricter:
    0 may be outside of the interval although the p-value is a little above .05.

    Args:
        num_gained: examples that only the first answers right.
        num_lost: examples that only the second answers right.
        num: all examples, at least one.
    """
    interval = None
    if num >= MIN_EXAMPLES:
        interval = _tango_low(num_gained, num_lost, num), -_tango_low(num_lost, num_gained, num)
    return Score((num_gained - num_lost) / num, interval, num)


def _tango_low(num_gained: int, num_lost: int, num: int) -> float:
    """Return the lower end; the upper one is that of the swapped counts with the other sign."""
    found = num_gained - num_lost
    if num_lost == num:
        return -1.0

    def statistic(difference: float) -> float:
        """Return the score statistic of an assumed difference, minus the critical value Z."""
        linear = (2 * num - found) * difference - num_gained - num_lost
        root = linear**2 + 8 * num * num_lost * difference * (1 - difference)
        # The most likely share of lost examples where the true difference is this one.
        lost = (math.sqrt(max(0.0, root)) - linear) / (4 * num)
        variance = num * (2 * lost + difference * (1 - difference))
        gap = found - num * difference
        if variance > 0:
            return gap / math.sqrt(variance) - Z
        return math.inf if gap > 0 else -Z

    return float(bisect(statistic, -1.0, found / num))
