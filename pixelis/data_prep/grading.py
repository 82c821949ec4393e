"""Once every score is known: categories, what is looked at again, and the figures of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelis.config import DataPrepConfig
from pixelis.curriculum.difficulty import COMPONENTS
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data_prep.difficulty import AnswerLosses, build_scorer
from pixelis.data_prep.difficulty.categories import (
    categorise_by_percentiles,
    categorise_by_thresholds,
    observed_thresholds,
)
from pixelis.data_prep.difficulty.correlation import choose_spread, rank_correlation
from pixelis.data_prep.figures import EXAMPLES_IN_ROW, difficulty_figure, examples_figure
from pixelis.data_prep.output_folder import DIFFICULTY_FIGURE, EXAMPLES_FIGURE
from pixelis.data_prep.spool import Columns
from pixelis.data_prep.tasks import TASK_WEIGHTS

# More points make the figure's bars no truer.
MAX_PLOTTED = 20_000


def categorise(columns: Columns, config: DataPrepConfig) -> tuple[list[str], dict[str, Any]]:
    """The difficulty of every example, and the cuts for the summary."""
    rules = config.difficulty
    if rules.method == "thresholds":
        found = categorise_by_thresholds(columns.scores, rules.thresholds)
        return found, {"method": "thresholds", "values": {"all": list(rules.thresholds)}}
    by_task = config.split_by_category
    tasks = columns.column("task") if by_task else ["all"] * len(columns)
    found = categorise_by_percentiles(
        columns.scores,
        # Within each split as well, so that no stratum of a split is empty.
        groups=list(zip(tasks, columns.column("split"), strict=True)),
        ties=list(zip(columns.num_objects, columns.keys, strict=True)),
        percentiles=(rules.percentiles[0], rules.percentiles[1]),
        parents=tasks,
    )
    values = observed_thresholds(columns.scores, tasks, found)
    return found, {"method": "percentiles", "values": values}


def choose_examples(
    columns: Columns, difficulties: Sequence[str], config: DataPrepConfig
) -> dict[str, list[int]]:
    """Which examples are looked at again: for the correlation, and of each category to show."""
    tasks = columns.column("task")
    limit = config.difficulty.correlation_samples
    chosen = {"correlation": choose_spread(tasks, limit, config.seed) if limit else []}
    for difficulty in DIFFICULTIES:
        members = [index for index, found in enumerate(difficulties) if found == difficulty]
        spread = choose_spread([tasks[index] for index in members], EXAMPLES_IN_ROW, config.seed)
        chosen[difficulty] = [members[position] for position in spread]
    return chosen


def correlate(
    examples: Sequence[Example], config: DataPrepConfig, answer_losses: AnswerLosses
) -> dict[str, Any]:
    """Spearman's correlation of the composite score with the base model's loss, and by task.

    Categories are cut within tasks, so that the correlation within them is what counts for these.
    """
    weights = {name: getattr(config.difficulty, name) for name in COMPONENTS}
    scorer = build_scorer("composite", weights=weights, task_weights=TASK_WEIGHTS)
    scores = [score.value for score in scorer(examples)]
    losses = answer_losses(examples)
    found = rank_correlation(scores, losses)
    by_task = {}
    for task in sorted({example.task for example in examples}):
        members = [index for index, example in enumerate(examples) if example.task == task]
        within = rank_correlation([scores[i] for i in members], [losses[i] for i in members])
        by_task[task] = within["spearman"]
    return {**found, "by_task": by_task}


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
