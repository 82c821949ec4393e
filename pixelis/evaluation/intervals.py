"""Means and ratios with bootstrap confidence intervals over examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95  # confidence level
# Resampled positions are drawn in blocks of about this number, which limits memory to megabytes.
_BLOCK = 1_000_000

# Numerator and denominator of one example in a ratio; None if the ratio is not defined for it.
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
    values: Sequence[float], *, num_samples: int, seed: int
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron 1979; Efron and Tibshirani 1993).

    All values are resampled with replacement `num_samples` times; the interval holds the middle
    95 % of the means. The seed determines it. If all values are equal, it has no width, even if
    there are only a few: read it together with the group's size.

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
    )


def _resampled(
    size: int,
    statistic: Callable[[npt.NDArray[np.int64]], Values],
    *,
    num_samples: int,
    seed: int,
) -> tuple[float, float]:
    """Return percentiles of a statistic of resampled positions (block, size) -> (block,)."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // size)
    statistics = [
        statistic(generator.integers(0, size, (min(block, num_samples - start), size)))
        for start in range(0, num_samples, block)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(np.concatenate(statistics), [tail, 1 - tail])
    return float(low), float(high)


def compute_score(values: Sequence[float], *, num_samples: int, seed: int) -> Score:
    """Return the mean of values with its 95 % bootstrap interval."""
    low, high = bootstrap_interval(values, num_samples=num_samples, seed=seed)
    return Score(sum(values) / len(values), low, high, len(values))


def compute_ratio(fractions: Sequence[Fraction], *, num_samples: int, seed: int) -> Score | None:
    """Return the sum of numerators over the sum of denominators, with its 95 % interval.

    Examples are resampled with both numbers together: the ratio estimator (Efron and Tibshirani
    1993, ch. 6). With denominators of 1, this is the mean with the interval of
    `bootstrap_interval`. A resample with a denominator of 0 is left out.

    Returns:
        The ratio, with the number of examples whose denominator is not 0; None if there are none.
    """
    pairs = np.asarray([f for f in fractions if f is not None and f[1]], dtype=np.float64)
    if not len(pairs):
        return None
    parts, wholes = pairs[:, 0], pairs[:, 1]
    low, high = _resampled(
        len(pairs),
        lambda chosen: parts[chosen].sum(1) / wholes[chosen].sum(1),
        num_samples=num_samples,
        seed=seed,
    )
    return Score(float(parts.sum() / wholes.sum()), low, high, len(pairs))


def ratio_table(
    fractions: Mapping[str, Sequence[Fraction]],
    groups: Mapping[str, Sequence[int]],
    *,
    num_samples: int,
    seed: int,
) -> dict[str, dict[str, Score]]:
    """Return `compute_ratio` of every measure in every group: group -> measure -> score.

    Measures that are not defined for a group, and groups without any, are left out.

    Args:
        fractions: measure -> one fraction per example.
        groups: group -> positions of its examples (`metrics.group_indices`).
        num_samples: number of resamples for each interval.
        seed: seed of the resampling.
    """
    table: dict[str, dict[str, Score]] = {}
    for group, indices in groups.items():
        for name, values in fractions.items():
            score = compute_ratio([values[i] for i in indices], num_samples=num_samples, seed=seed)
            if score is not None:
                table.setdefault(group, {})[name] = score
    return table
