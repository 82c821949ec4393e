"""The difficulty of an example, from its trajectory alone: a score in [0, 1], its components.

Every component is in [0, 1] and grows with the difficulty; none depends on the form of the text.
"""

import math
from collections.abc import Hashable, Mapping, Sequence

COMPONENTS = ("trajectory", "operations", "reasoning", "errors", "task")
# Beyond this many steps the logarithmic components are 1.
FULL_STEPS = 15
MAX_SOPHISTICATION = 3
# Share of the operations component that counts how many kinds are used.
KINDS_SHARE = 0.2
ERROR_WEIGHTS = {
    "positive": 0.0,
    "outcome_negative": 0.4,
    "self_correction": 0.5,
    "trap_perceptual": 0.8,
    "trap_logical": 1.0,
}


def _log_scaled(count: int) -> float:
    return min(1.0, math.log1p(count) / math.log1p(FULL_STEPS))


def compute_components(
    *,
    sophistications: Sequence[int],
    num_kinds_used: int,
    num_kinds: int,
    num_thoughts: int,
    num_corrections: int,
    sample_type: str,
    task_weight: float,
) -> dict[str, float]:
    """Compute the five components of the composite difficulty score, each in [0, 1].

    Args:
        sophistications: the weight (1 to 3) of each operation called, in order.
        num_kinds_used: number of different operations called.
        num_kinds: number of existing operations.
        num_thoughts: thinking steps, the conclusion included.
        num_corrections: number of wrong steps that were noticed and corrected.
        sample_type: a key of ERROR_WEIGHTS.
        task_weight: the task's own weight in [0, 1].
    """
    steps = len(sophistications)
    mean = sum(sophistications) / steps / MAX_SOPHISTICATION if steps else 0.0
    return {
        "trajectory": _log_scaled(steps),
        "operations": (1 - KINDS_SHARE) * mean + KINDS_SHARE * num_kinds_used / num_kinds,
        "reasoning": _log_scaled(num_thoughts),
        "errors": min(1.0, ERROR_WEIGHTS[sample_type] + 0.1 * max(0, num_corrections - 1)),
        "task": task_weight,
    }


def combine(components: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Compute the weighted sum of the components; weights are >= 0 and sum to 1."""
    return sum(weights[name] * components[name] for name in COMPONENTS)


def categorise(
    keys: Sequence[tuple[Hashable, ...]],
    groups: Sequence[Hashable],
    percentiles: tuple[float, float],
    names: tuple[str, str, str] = ("simple", "medium", "hard"),
    parents: Sequence[Hashable] | None = None,
) -> list[str]:
    """Cut each group at two percentiles of its rank, so that every category has examples of each.

    Args:
        keys: a sortable key for each example: the score, then values that break ties.
        groups: the group of each example (its task and split).
        percentiles: the two cuts, in percent, ascending.
        names: the three categories, easiest first.
        parents: the task that each group belongs to: its shares are exact as well.

    Returns:
        A category for each example; each group's shares, and each parent's, are exact to one
        example.
    """
    members: dict[tuple[Hashable, Hashable], list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault((None if parents is None else parents[index], group), []).append(index)
    families: dict[Hashable, list[tuple[Hashable, Hashable]]] = {}
    for member in members:
        families.setdefault(member if parents is None else member[0], []).append(member)
    categories = [""] * len(keys)
    for family in families.values():
        sizes = [len(members[member]) for member in family]
        first, second = _cut_twice(sizes, percentiles)
        for member, low, high in zip(family, first, second, strict=True):
            ranked = sorted(members[member], key=lambda index: keys[index])
            for rank, index in enumerate(ranked):
                categories[index] = names[(rank >= low) + (rank >= high)]
    return categories


def _cut_twice(sizes: Sequence[int], percentiles: tuple[float, float]) -> list[list[int]]:
    """Count the examples of each group below two percentiles, by the largest remainders.

    The sums are exact, so each quota is rounded up or down. If both quotas of a small group lie
    between the same two integers, the first may be rounded up only together with the second.
    """
    quotas = [[size * percentile / 100 for size in sizes] for percentile in percentiles]
    below = [[math.floor(quota) for quota in row] for row in quotas]
    missing = [
        round(sum(sizes) * percentile / 100) - sum(row)
        for percentile, row in zip(percentiles, below, strict=True)
    ]
    narrow = {i for i in range(len(sizes)) if below[0][i] == below[1][i]}
    raised: list[int] = []
    for i in _by_remainder(quotas[0], below[0]):
        is_free = i not in narrow or len(narrow.intersection(raised)) < missing[1]
        if is_free and len(raised) < missing[0]:
            raised.append(i)
    forced = [i for i in raised if i in narrow]
    others = [i for i in _by_remainder(quotas[1], below[1]) if i not in forced]
    for row, chosen in zip(below, (raised, [*forced, *others][: missing[1]]), strict=True):
        for i in chosen:
            row[i] += 1
    return below


def _by_remainder(quotas: Sequence[float], below: Sequence[int]) -> list[int]:
    return sorted(range(len(quotas)), key=lambda i: (below[i] - quotas[i], i))
