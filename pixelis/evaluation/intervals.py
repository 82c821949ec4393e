"""Means and ratios with bootstrap intervals over examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Resampled positions are drawn in blocks of about this many: memory stays within some megabytes.
_BLOCK = 1_000_000

# One example's share of a ratio: its part and its whole; None where it says nothing of it.
Fraction = tuple[float, float] | None
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A mean with its confidence interval.

    Attributes:
        value: mean over the group, in [0, 1] for accuracies, in [-1, 1] for gains.
        low: lower end of the interval.
        high: upper end of the interval.
        num: examples in the group.
    """

    value: float
    low: float
    high: float
    num: int


def bootstrap_interval(
    values: Sequence[float], *, num_samples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979; Efron and Tibshirani 1993, ch. 13).

    `num_samples` times, as many values as there are are drawn with replacement; the interval holds
    the middle `level` of their means. Deterministic by the seed. Where all values are equal it has
    no width, however few they are: read it with the group's size.

    Raises:
        ValueError: when there are no values.
    """
    if not values:
        raise ValueError("an interval needs at least one value, got none")
    data = np.asarray(values, dtype=np.float64)
    return _resampled(
        len(data),
        lambda chosen: data[chosen].mean(1),
        num_samples=num_samples,
        seed=seed,
        level=level,
    )


def _resampled(
    size: int,
    statistic: Callable[[npt.NDArray[np.int64]], Values],
    *,
    num_samples: int,
    seed: int,
    level: float,
) -> tuple[float, float]:
    """Percentiles of a statistic of resampled positions (block, size) -> (block,)."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // size)
    found = [
        statistic(generator.integers(0, size, (min(block, num_samples - start), size)))
        for start in range(0, num_samples, block)
    ]
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return float(low), float(high)


def compute_score(values: Sequence[float], *, num_samples: int, seed: int) -> Score:
    """The mean of values with its 95 % bootstrap interval."""
    low, high = bootstrap_interval(values, num_samples=num_samples, seed=seed)
    return Score(sum(values) / len(values), low, high, len(values))


def compute_ratio(fractions: Sequence[Fraction], *, num_samples: int, seed: int) -> Score | None:
    """The sum of the parts over the sum of the wholes, with its 95 % bootstrap interval.

    Examples are resampled, each with its part and its whole together: the ratio estimator (Efron
    and Tibshirani 1993, ch. 6). With wholes of 1 it is the mean, and its interval that of
    `bootstrap_interval`. A resample without any whole says nothing and is left out.

    Returns:
        None where no example says anything (all wholes are 0 or there are no fractions); `num` is
        the number of examples with a whole.
    """
    told = np.asarray([f for f in fractions if f is not None and f[1]], dtype=np.float64)
    if not len(told):
        return None
    parts, wholes = told[:, 0], told[:, 1]
    low, high = _resampled(
        len(told),
        lambda chosen: parts[chosen].sum(1) / wholes[chosen].sum(1),
        num_samples=num_samples,
        seed=seed,
        level=0.95,
    )
    return Score(float(parts.sum() / wholes.sum()), low, high, len(told))


def ratio_table(
    fractions: Mapping[str, Sequence[Fraction]],
    groups: Mapping[str, Sequence[int]],
    *,
    num_samples: int,
    seed: int,
) -> dict[str, dict[str, Score]]:
    """`compute_ratio` of every measure in every group: group -> measure -> score.

    Args:
        fractions: measure -> one fraction an example.
        groups: group -> positions of its examples (`pixelis.evaluation.groups`).
        num_samples: resamples behind each interval.
        seed: of the intervals.

    Returns:
        without the measures that say nothing of a group, and the groups of which nothing is said.
    """
    table: dict[str, dict[str, Score]] = {}
    for group, indices in groups.items():
        for name, values in fractions.items():
            score = compute_ratio([values[i] for i in indices], num_samples=num_samples, seed=seed)
            if score is not None:
                table.setdefault(group, {})[name] = score
    return table
