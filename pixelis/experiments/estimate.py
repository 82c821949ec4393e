"""The mean over independent trainings, one for each seed, with its 95 % interval."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t as student

LEVEL = 0.95
EQUAL = 1e-9  # values with a smaller standard deviation differ by rounding alone


class Estimate(NamedTuple):
    """A mean over seeds; the half width of its 95 % interval is infinite if there is none."""

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
            why = "one seed" if self.num == 1 else "equal seeds"
            return f"{self.mean:{spec}} ({why}: no interval)"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def estimate(values: Sequence[float]) -> Estimate:
    """Compute the mean and its interval: Student's t, mean +- t(.975, n - 1) * s / sqrt(n).

    The values are not shares of one set of examples: each is that of another training, and the
    interval covers how much trainings vary. Equal values do not tell that, so that they have no
    interval, as a single one.
    """
    num = len(values)
    spread = stdev(values) if num > 1 else 0.0
    if spread < EQUAL:
        return Estimate(fmean(values), math.inf, num)
    half = float(student.ppf((1 + LEVEL) / 2, num - 1)) * spread / math.sqrt(num)
    return Estimate(fmean(values), half, num)
