"""The measures of an evaluation as numbers for charts, rows for files, a table for the console."""

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.groups import ALL, strata
from pixelis.evaluation.intervals import Score
from pixelis.evaluation.summary import Evaluation


def evaluated_models(result: EvaluationResult) -> dict[str, Evaluation]:
    """Label -> evaluation of all that were rolled out, in the order of columns."""
    models = {"base": result.base, "against": result.against, "adapter": result.adapter}
    return {label: model for label, model in models.items() if model is not None}


def measure_values(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    """Flat names: `<prefix>/<group>/<measure>`; for difficulties and all `_low` and `_high` too."""
    values: dict[str, float] = {}
    # Of the others they are in the rows.
    with_intervals = {*strata(evaluation.measures), ALL}
    for group, measures in evaluation.measures.items():
        for name, score in measures.items():
            key = f"{prefix}/{group}/{name}"
            values[key] = score.value
            if group in with_intervals:
                values |= {f"{key}_low": score.low, f"{key}_high": score.high}
    return values


def measure_rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """One flat dict a model, group and measure."""
    return [
        {
            "model": label,
            "group": group,
            "measure": name,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.num,
        }
        for label, evaluation in evaluated_models(result).items()
        for group, measures in evaluation.measures.items()
        for name, score in measures.items()
    ]


def _cell(score: Score | None, name: str) -> str:
    if score is None:
        return ""
    if name.startswith("steps_"):
        return f"{score.value:5.2f} [{score.low:.1f}, {score.high:.1f}]"
    return f"{100 * score.value:5.1f} [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def measures_of(result: EvaluationResult, group: str = ALL) -> Iterator[tuple[str, int, list[str]]]:
    """Of a group every measure: its name, examples that it is about, a cell a model, for people.

    In percent with the 95 % interval, steps as they are; empty where a model has no such measure.
    """
    tables = [e.measures.get(group, {}) for e in evaluated_models(result).values()]
    for name in dict.fromkeys(name for table in tables for name in table):
        scores = [table.get(name) for table in tables]
        num = max(score.num for score in scores if score is not None)
        yield name.replace("_", " "), num, [_cell(score, name) for score in scores]


def measured_groups(result: EvaluationResult) -> list[str]:
    """The groups that have measures: all, then difficulties, tasks, sample types, operations."""
    found = dict.fromkeys(g for e in evaluated_models(result).values() for g in e.measures)
    return [ALL, *(group for group in found if group != ALL)]


def measures_table(result: EvaluationResult, *, title: str, group: str = ALL) -> Table:
    """Every measure of a group, a column a model; in percent, steps as they are."""
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("")
    table.add_column("n", justify="right")
    for label in evaluated_models(result):
        table.add_column(label, no_wrap=True)
    for name, num, cells in measures_of(result, group):
        table.add_row(name, str(num), *cells)
    return table
