"""The mean over independent trainings, one for each seed, with its 95 % interval."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t as student

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over seeds; the half width of its 95 % interval is infinite for a single value."""

    mean: float
    half: float
    num: int

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half

    def __format__(self, spec: str) -> str:
        """Return the mean and the interval, each number in the format of a float."""
        if math.isinf(self.half):
            return f"{self.mean:{spec}} (one seed: no interval)"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def estimate(values: Sequence[float]) -> Estimate:
    """Compute the mean and its interval: Student's t, mean +- t(.975, n - 1) * s / sqrt(n)."""
    num = len(values)
    if num == 1:
        return Estimate(values[0], math.inf, 1)
    half = float(student.ppf((1 + LEVEL) / 2, num - 1)) * stdev(values) / math.sqrt(num)
    return Estimate(fmean(values), half, num)
