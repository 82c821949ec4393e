"""Grade a data set once every score is known: categories, correlation and figures."""

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from pixelis.config import DataPrepConfig
from pixelis.curriculum.difficulty import COMPONENTS
from pixelis.curriculum.difficulty import categorise as cut_by_rank
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data_prep.columns import Columns
from pixelis.data_prep.difficulty import AnswerLosses, build_scorer
from pixelis.data_prep.figures import EXAMPLES_IN_ROW, difficulty_figure, examples_figure
from pixelis.data_prep.output_folder import DIFFICULTY_FIGURE, EXAMPLES_FIGURE
from pixelis.data_prep.tasks import TASK_WEIGHTS

# More points do not change the figure's bars visibly.
MAX_PLOTTED = 20_000
# A correlation of two points is always 1 or -1.
MIN_SAMPLES = 3
# A cut: halfway between the hardest of one category and the easiest of the next, or None.
CutPoints = tuple[float | None, float | None]


def categorise(columns: Columns, config: DataPrepConfig) -> tuple[list[str], dict[str, Any]]:
    """Return the difficulty of every example, and the thresholds for the summary."""
    rules = config.difficulty
    if rules.method == "thresholds":
        difficulties = categorise_by_thresholds(columns.scores, rules.thresholds)
        return difficulties, {"method": "thresholds", "values": {"all": list(rules.thresholds)}}
    by_task = config.split_by_category
    tasks = columns.column("task") if by_task else ["all"] * len(columns)
    difficulties = categorise_by_percentiles(
        columns.scores,
        # Within each split too, so that every split has examples of every category.
        groups=list(zip(tasks, columns.column("split"), strict=True)),
        ties=list(zip(columns.num_objects, columns.keys, strict=True)),
        percentiles=(rules.percentiles[0], rules.percentiles[1]),
        parents=tasks,
    )
    values = observed_thresholds(columns.scores, tasks, difficulties)
    return difficulties, {"method": "percentiles", "values": values}


def choose_examples(
    columns: Columns, difficulties: Sequence[str], config: DataPrepConfig
) -> dict[str, list[int]]:
    """Choose the examples for the correlation, and those of each category to show."""
    tasks = columns.column("task")
    limit = config.difficulty.correlation_samples
    chosen = {"correlation": choose_spread(tasks, limit, config.seed) if limit else []}
    for difficulty in DIFFICULTIES:
        members = [index for index, other in enumerate(difficulties) if other == difficulty]
        spread = choose_spread([tasks[index] for index in members], EXAMPLES_IN_ROW, config.seed)
        chosen[difficulty] = [members[position] for position in spread]
    return chosen


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
    overall = rank_correlation(scores, losses)
    by_task = {}
    for task in sorted({example.task for example in examples}):
        members = [index for index, example in enumerate(examples) if example.task == task]
        within = rank_correlation([scores[i] for i in members], [losses[i] for i in members])
        by_task[task] = within["spearman"]
    return {**overall, "by_task": by_task}


def draw_figures(
    folder: Path,
    columns: Columns,
    difficulties: Sequence[str],
    thresholds: Mapping[str, Any],
    wanted: Mapping[str, Sequence[int]],
    chosen: Mapping[int, Example],
) -> None:
    """Draw the distributions of the scores, and examples of each category."""
    every = 1 + len(columns) // MAX_PLOTTED
    plotted = [row for i, row in enumerate(columns.rows(difficulties)) if i % every == 0]
    difficulty_figure(plotted, thresholds).savefig(folder / DIFFICULTY_FIGURE)
    shown = {d: [chosen[index] for index in wanted[d]] for d in DIFFICULTIES}
    examples_figure(shown).savefig(folder / EXAMPLES_FIGURE)


def categorise_by_percentiles(
    scores: Sequence[float],
    *,
    groups: Sequence[Hashable],
    ties: Sequence[Any],
    percentiles: tuple[float, float],
    parents: Sequence[Hashable] | None = None,
) -> list[str]:
    """Cut each group at two percentiles of its rank.

    Args:
        scores: the score of each example.
        groups: the group of each example (task and split); every category gets its share of each.
        ties: orders examples with equal scores, such as an id, so that the shares are exact to one
            example and do not depend on the order of the examples.
        percentiles: the two cuts in percent.
        parents: the task that each group belongs to: its shares are exact as well.
    """
    keys = list(zip(scores, ties, strict=True))
    return cut_by_rank(keys, groups, percentiles, DIFFICULTIES, parents)


def categorise_by_thresholds(scores: Sequence[float], thresholds: Sequence[float]) -> list[str]:
    """Cut at two rising scores: below the first is simple, from the second on is hard."""
    first, second = thresholds
    return [DIFFICULTIES[(score >= first) + (score >= second)] for score in scores]


def observed_thresholds(
    scores: Sequence[float], groups: Sequence[str], categories: Sequence[str]
) -> dict[str, CutPoints]:
    """Return the scores at which the percentiles cut each group, for the summary and the figure.

    A cut lies halfway between the hardest example below it and the easiest above, which are equal
    where a tie was cut. None if one side is empty.
    """
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    for score, group, category in zip(scores, groups, categories, strict=True):
        low, high = spans.setdefault(group, {}).get(category, (score, score))
        spans[group][category] = min(low, score), max(high, score)
    return {group: _cut_points(spans[group]) for group in sorted(spans)}


def _cut_points(spans: dict[str, tuple[float, float]]) -> CutPoints:
    present = [spans.get(name) for name in DIFFICULTIES]
    cuts: list[float | None] = []
    for position in (1, 2):
        below = [span[1] for span in present[:position] if span]
        above = [span[0] for span in present[position:] if span]
        cuts.append((max(below) + min(above)) / 2 if below and above else None)
    return cuts[0], cuts[1]


def rank_correlation(scores: Sequence[float], errors: Sequence[float]) -> dict[str, Any]:
    """Compute Spearman's correlation of scores and errors; an infinite error is the largest.

    Returns:
        `spearman` in [-1, 1] and its `p_value`, both None where they are undefined (fewer than
        MIN_SAMPLES, all scores or all errors equal, an error that is no number), and `num_samples`.
    """
    pairs = list(zip(scores, errors, strict=True))
    spearman: float | None = None
    p_value: float | None = None
    defined = len(pairs) >= MIN_SAMPLES and not any(math.isnan(x) for pair in pairs for x in pair)
    if defined and len(set(scores)) > 1 and len(set(errors)) > 1:
        result = stats.spearmanr(scores, errors)
        spearman, p_value = float(result.statistic), float(result.pvalue)
    return {"spearman": spearman, "p_value": p_value, "num_samples": len(pairs)}


def choose_spread(tasks: Sequence[str], limit: int, seed: int) -> list[int]:
    """Choose at most `limit` indices, spread evenly over the tasks and drawn by the seed; rising.

    Tasks with few examples give all of them, and the others share the rest of the limit.
    """
    members: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        members.setdefault(task, []).append(index)
    order = []
    for task, indices in sorted(members.items()):
        random.Random(f"correlation:{seed}:{task}").shuffle(indices)
        order += [(turn, task, index) for turn, index in enumerate(indices)]
    return sorted(index for _, _, index in sorted(order)[:limit])
