"""Grade a data set once every score is known: categories, thresholds and rank correlation."""

import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from scipy import stats

from pixelis.config import DataPrepConfig
from pixelis.curriculum.difficulty import COMPONENTS, categorise
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data_prep.difficulty import AnswerLosses, build_scorer
from pixelis.data_prep.tasks import TASK_WEIGHTS

# A correlation of two points is always 1 or -1.
MIN_SAMPLES = 3


def grade(facts: pd.DataFrame, config: DataPrepConfig) -> dict[str, Any]:
    """Add the column `difficulty` to a facts table; return the thresholds for the summary.

    Percentiles cut the rank within each task (with `split_by_category`) and split, so that every
    split has examples of every category. Ties are ordered by the facts alone, so the result does
    not depend on the order of the examples.
    """
    rules = config.difficulty
    if rules.method == "thresholds":
        cuts = np.searchsorted(rules.thresholds, facts["score"], side="right")
        facts["difficulty"] = [DIFFICULTIES[cut] for cut in cuts]
        return {"method": "thresholds", "values": {"all": list(rules.thresholds)}}
    tasks = facts["task"].tolist() if config.split_by_category else ["all"] * len(facts)
    facts["difficulty"] = categorise(
        list(zip(facts["score"], facts["num_objects"], facts["key"], strict=True)),
        list(zip(tasks, facts["split"], strict=True)),
        (rules.percentiles[0], rules.percentiles[1]),
        DIFFICULTIES,
        parents=tasks,
    )
    groups = facts.groupby(pd.Series(tasks))
    values = {task: observed_thresholds(group) for task, group in groups}
    return {"method": "percentiles", "values": values}


def observed_thresholds(facts: pd.DataFrame) -> list[float | None]:
    """Return the two scores at which percentiles cut a group, for the summary and the figure.

    A cut lies halfway between the hardest example below it and the easiest above, which are equal
    where a tie was cut. None if one side is empty.
    """
    cuts: list[float | None] = []
    for position in (1, 2):
        is_below = facts["difficulty"].isin(DIFFICULTIES[:position])
        below, above = facts["score"][is_below].max(), facts["score"][~is_below].min()
        cut = (below + above) / 2
        cuts.append(None if np.isnan(cut) else float(cut))
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
