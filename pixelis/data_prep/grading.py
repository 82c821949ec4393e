"""Grade a data set once every score is known: categories, thresholds and rank correlation."""

import math
import random
import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from scipy import stats

from pixelis.config import DataPrepConfig
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data_prep.difficulty import COMPONENTS, AnswerLosses, build_scorer
from pixelis.data_prep.tasks import TASK_WEIGHTS

# A correlation of two points is always 1 or -1.
MIN_SAMPLES = 3


def grade(facts: pd.DataFrame, config: DataPrepConfig) -> dict[str, Any]:
    """Add the column `difficulty` to a facts table; return the thresholds for the summary.

    Percentiles cut the rank within each task (with `split_by_category`) and split, so that every
    split has examples of every category. Ties are ordered by the facts alone, so the result does
    not depend on the order of the examples. A task whose scores cannot be cut, since both cuts lie
    between equal examples, is `simple` as a whole: its other categories would be drawn by lot.
    """
    rules = config.difficulty
    if rules.method == "thresholds":
        cuts = np.searchsorted(rules.thresholds, facts["score"], side="right")
        facts["difficulty"] = [DIFFICULTIES[cut] for cut in cuts]
        return {"method": "thresholds", "values": {"all": list(rules.thresholds)}}
    tasks = facts["task"].tolist() if config.split_by_category else ["all"] * len(facts)
    percentiles = rules.percentiles[0], rules.percentiles[1]
    found = categorise(
        list(zip(facts["score"], facts["num_objects"], facts["key"], strict=True)),
        list(zip(tasks, facts["split"], strict=True)),
        tasks,
        percentiles,
    )
    measured = list(zip(facts["score"], facts["num_objects"], strict=True))
    undivided = find_undivided(measured, tasks, percentiles)
    facts["difficulty"] = [
        DIFFICULTIES[0] if task in undivided else name
        for task, name in zip(tasks, found, strict=True)
    ]
    groups = facts.groupby(pd.Series(tasks))
    values = {task: observed_thresholds(group) for task, group in groups}
    return {"method": "percentiles", "values": values, "undivided": sorted(undivided)}


def find_undivided(
    keys: Sequence[tuple[float, ...]], tasks: Sequence[str], percentiles: tuple[float, float]
) -> set[str]:
    """Return the tasks in which both percentiles cut between equal keys.

    Args:
        keys: what is known of each example's difficulty; larger is harder.
        tasks: the task of each example.
        percentiles: the two cuts, in percent, ascending.
    """
    members: dict[str, list[tuple[float, ...]]] = {}
    for task, key in zip(tasks, keys, strict=True):
        members.setdefault(task, []).append(key)
    undivided = set()
    for task, found in members.items():
        found.sort()
        low, high = (round(len(found) * percentile / 100) for percentile in percentiles)
        if found[max(0, low - 1)] == found[min(high, len(found) - 1)]:
            undivided.add(task)
    return undivided


def categorise(
    keys: Sequence[tuple[Hashable, ...]],
    groups: Sequence[Hashable],
    tasks: Sequence[Hashable],
    percentiles: tuple[float, float],
) -> list[str]:
    """Cut each group at two percentiles of its rank, so that every category has examples of each.

    Args:
        keys: a sortable key for each example: the score, then values that break ties.
        groups: the group of each example (its task and split).
        tasks: the task of each example, which has several groups.
        percentiles: the two cuts, in percent, ascending.

    Returns:
        A category for each example; each group's shares, and each task's, are exact to one example.
    """
    members: dict[Hashable, dict[Hashable, list[int]]] = {}
    for index, (task, group) in enumerate(zip(tasks, groups, strict=True)):
        members.setdefault(task, {}).setdefault(group, []).append(index)
    categories = [""] * len(keys)
    for family in members.values():
        cuts = _cut_twice([len(indices) for indices in family.values()], percentiles)
        for indices, low, high in zip(family.values(), *cuts, strict=True):
            for rank, index in enumerate(sorted(indices, key=lambda index: keys[index])):
                categories[index] = DIFFICULTIES[(rank >= low) + (rank >= high)]
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


def observed_thresholds(facts: pd.DataFrame) -> list[float | None]:
    """Return the two scores at which percentiles cut a group, for the summary and the figure.

    A cut lies halfway between the hardest example below it and the easiest above, which are equal
    where a tie was cut. None if one side is empty.
    """
    # In numpy, since an import may have as many tasks as examples, and pandas takes 0.8 ms a task.
    scores = facts["score"].to_numpy()
    ranks = np.array([DIFFICULTIES.index(name) for name in facts["difficulty"]])
    cuts: list[float | None] = []
    for position in (1, 2):
        below, above = scores[ranks < position], scores[ranks >= position]
        cuts.append(float((below.max() + above.min()) / 2) if below.size and above.size else None)
    return cuts


def correlate(
    examples: Sequence[Example], config: DataPrepConfig, answer_losses: AnswerLosses
) -> dict[str, Any]:
    """Correlate the composite score with the base model's loss (Spearman), and by task.

    Categories are cut within tasks, so the correlation within a task shows their quality.
    """
    weights = {name: getattr(config.difficulty, name) for name in COMPONENTS}
    scorer = build_scorer("composite", weights=weights, task_weights=TASK_WEIGHTS)
    scores = [score.value for score in scorer(examples)]
    losses = answer_losses(examples)
    by_task = {}
    for task in sorted({example.task for example in examples}):
        members = [index for index, example in enumerate(examples) if example.task == task]
        within = rank_correlation([scores[i] for i in members], [losses[i] for i in members])
        by_task[task] = within["spearman"]
    return {**rank_correlation(scores, losses), "by_task": by_task}


def rank_correlation(scores: Sequence[float], errors: Sequence[float]) -> dict[str, Any]:
    """Compute Spearman's correlation of scores and errors; an infinite error is the largest.

    Returns:
        `spearman` in [-1, 1] and its `p_value`, both None where they are undefined (fewer than
        MIN_SAMPLES, all scores or all errors equal, an error that is no number), and `num_samples`.
    """
    spearman: float | None = None
    p_value: float | None = None
    if len(scores) >= MIN_SAMPLES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            result = stats.spearmanr(scores, errors)
        if not np.isnan(result.statistic):
            spearman, p_value = float(result.statistic), float(result.pvalue)
    return {"spearman": spearman, "p_value": p_value, "num_samples": len(scores)}


def choose_spread(facts: pd.DataFrame, limit: int, seed: int) -> list[int]:
    """Choose at most `limit` rows, spread evenly over the tasks and drawn by the seed; rising.

    Tasks with few examples give all of them, and the others share the rest of the limit.
    """
    order = []
    for task, members in facts.groupby("task"):
        indices = members.index.tolist()
        random.Random(f"correlation:{seed}:{task}").shuffle(indices)
        order += [(turn, task, index) for turn, index in enumerate(indices)]
    return sorted(index for _, _, index in sorted(order)[:limit])
