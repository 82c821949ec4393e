"""Does the score measure difficulty? Its rank correlation with the base model's error."""

import math
import random
from collections.abc import Sequence
from typing import Any

from scipy import stats

# A correlation of two points is always 1 or -1.
MIN_SAMPLES = 3


def rank_correlation(scores: Sequence[float], errors: Sequence[float]) -> dict[str, Any]:
    """Spearman's correlation of scores and errors; an infinite error is the largest.

    Returns:
        `spearman` in [-1, 1] and its `p_value`, both None where they are undefined (fewer than
        MIN_SAMPLES, all scores or all errors equal, an error that is no number), and `num_samples`.
    """
    pairs = list(zip(scores, errors, strict=True))
    spearman: float | None = None
    p_value: float | None = None
    defined = len(pairs) >= MIN_SAMPLES and not any(math.isnan(x) for pair in pairs for x in pair)
    if defined and len(set(scores)) > 1 and len(set(errors)) > 1:
        found = stats.spearmanr(scores, errors)
        spearman, p_value = float(found.statistic), float(found.pvalue)
    return {"spearman": spearman, "p_value": p_value, "num_samples": len(pairs)}


def choose_spread(tasks: Sequence[str], limit: int, seed: int) -> list[int]:
    """At most `limit` indices, spread evenly over the tasks and drawn by the seed; rising.

    Small tasks give all they have, and the others share what is left.
    """
    members: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        members.setdefault(task, []).append(index)
    order = []
    for task, indices in sorted(members.items()):
        random.Random(f"correlation:{seed}:{task}").shuffle(indices)
        order += [(turn, task, index) for turn, index in enumerate(indices)]
    return sorted(index for _, _, index in sorted(order)[:limit])
