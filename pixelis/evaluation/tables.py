"""The result of an evaluation as tables for the console, rows for files and metrics for charts."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

from pixelis.evaluation.evaluate import AGAINST, BASE, EvaluationResult
from pixelis.evaluation.intervals import LEVEL, Score
from pixelis.evaluation.metrics import (
    ALL,
    TASK_PREFIX,
    Comparison,
    chance_levels,
    holm_corrected,
    is_cell,
    is_share,
    strata,
)

TITLE = "Answer accuracy with 95 % intervals"
P_NOTE = "p: McNemar's exact test, two-sided, not corrected for several groups"
CHANCE = "chance"
NOTHING = "–"  # in place of an interval or a chance level that is not known
UNLIMITED = 10_000  # columns of a console in which no row wraps
# Model -> metric of the adapter's gain over it, and suffix of the columns' names.
GAINS = {BASE: ("gain", ""), AGAINST: ("gain_over_against", "_over_against")}


def shown_groups(result: EvaluationResult) -> list[str]:
    """Return the groups that tables show: difficulties, all, tasks; rows have all groups."""
    table = result.adapter.accuracy
    tasks = sorted(name for name in table if name.startswith(TASK_PREFIX))
    return [name for name in (*strata(table), ALL, *tasks) if name in table]


def result_rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return one flat dict per group; shares are in [0, 1].

    The gain over the base is `gain`, `gained`, `lost`, `p_value`; over a second adapter the same
    names end in `_over_against`. An unknown chance level and the ends of a missing interval are
    None.
    """
    shown = shown_groups(result)
    others = sorted(name for name in result.adapter.accuracy if name not in shown)
    chances = chance_levels(result.examples)
    rows = []
    for name in (*shown, *others):
        row: dict[str, Any] = {"group": name, "n": result.adapter.accuracy[name].num}
        for label, evaluation in result.models.items():
            score = evaluation.accuracy[name]
            row[f"{label}_accuracy"] = score.value
            row[f"{label}_low"], row[f"{label}_high"] = score.ends
        for label, compared in result.comparisons.items():
            pair, end = compared[name], GAINS[label][1]
            row[f"gain{end}"] = pair.gain.value
            row[f"gain_low{end}"], row[f"gain_high{end}"] = pair.gain.ends
            row |= {f"gained{end}": pair.num_gained, f"lost{end}": pair.num_lost}
            row |= {f"p_value{end}": pair.p_value}
        rows.append(row | {CHANCE: chances.get(name)})
    return rows


def grid_of(result: EvaluationResult) -> EvaluationResult:
    """Return the result with cells only, worst first, and p-values corrected for their number.

    The worst cell has the lowest gain over the base or, without a base, the lowest accuracy.
    """
    accuracy, gains = result.adapter.accuracy, result.comparisons.get(BASE)

    def rank(cell: str) -> float:
        return accuracy[cell].value if gains is None else gains[cell].gain.value

    cells = sorted(filter(is_cell, accuracy), key=rank)
    return replace(
        result,
        models={
            label: replace(evaluation, accuracy={cell: evaluation.accuracy[cell] for cell in cells})
            for label, evaluation in result.models.items()
        },
        comparisons={
            label: holm_corrected({cell: compared[cell] for cell in cells})
            for label, compared in result.comparisons.items()
        },
    )


def grid_note(grid: EvaluationResult) -> str:
    """Return the note about the p-values of a grid (`grid_of`)."""
    num = len(grid.adapter.accuracy)
    return f"p: McNemar's exact test, two-sided, with Holm's correction for {num} cells"


def grid_rows(grid: EvaluationResult) -> list[dict[str, Any]]:
    """Return the rows of `result_rows` in the order of a grid (`grid_of`)."""
    rows = {row["group"]: row for row in result_rows(grid)}
    return [rows[cell] for cell in grid.adapter.accuracy]


def is_significant(pair: Comparison) -> bool:
    """Return whether the p-value of a comparison is below 5 %."""
    return pair.p_value < 1 - LEVEL


def loss_lines(grid: EvaluationResult) -> list[str]:
    """Return a line for each cell of a grid (`grid_of`) with a significant loss over the base."""
    compared = grid.comparisons.get(BASE, {})
    return [
        f"Significant loss on {cell}: {_percent(grid.models[BASE].accuracy[cell])} -> "
        f"{_percent(grid.adapter.accuracy[cell])} % of {pair.gain.num} examples "
        f"(p {format_p_value(pair.p_value)} with Holm's correction for {len(compared)} cells)"
        for cell, pair in compared.items()
        if pair.gain.value < 0 and is_significant(pair)
    ]


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f}"


def measure_rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return one flat dict per model, group and measure.

    The model `chance` has the chance levels that are known, without intervals.
    """
    rows: list[dict[str, Any]] = [
        {"model": label, "group": group, "measure": name}
        | {"value": score.value, "low": score.ends[0], "high": score.ends[1], "n": score.num}
        for label, evaluation in result.models.items()
        for group, measures in evaluation.measures.items()
        for name, score in measures.items()
    ]
    accuracy = result.adapter.accuracy
    rows += [
        {"model": CHANCE, "group": group, "measure": "answer_accuracy"}
        | {"value": level, "low": None, "high": None, "n": accuracy[group].num}
        for group, level in chance_levels(result.examples).items()
        if level is not None and not is_cell(group)
    ]
    return rows


def result_values(result: EvaluationResult, split: str) -> dict[str, float]:
    """Return every metric of an evaluation by name.

    Names are `test/adapter/simple/answer_accuracy` and `test/gain/hard`, with the suffixes `_low`
    and `_high` for intervals and `_p_value` for gains. Rates and intervals of measures are left out
    for other groups than difficulties and all; the rows have them.
    """
    values: dict[str, float] = {}
    for label, evaluation in result.models.items():
        prefix = f"{split}/{label}"
        for group, score in evaluation.accuracy.items():
            values |= score.metrics(f"{prefix}/{group}/answer_accuracy")
        for group in (*strata(evaluation.rates), ALL):
            rates = evaluation.rates.get(group, {})
            values |= {f"{prefix}/{group}/{name}": value for name, value in rates.items()}
        with_intervals = {*strata(evaluation.measures), ALL}
        for group, measures in evaluation.measures.items():
            for name, score in measures.items():
                key = f"{prefix}/{group}/{name}"
                values |= score.metrics(key) if group in with_intervals else {key: score.value}
    for label, compared in result.comparisons.items():
        for group, pair in compared.items():
            key = f"{split}/{GAINS[label][0]}/{group}"
            values |= {**pair.gain.metrics(key), f"{key}_p_value": pair.p_value}
    return values


def format_p_value(p_value: float) -> str:
    """Format a p-value with three digits, or as `<0.001`."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_chance(levels: Mapping[str, float | None], group: str) -> str:
    """Format a group's chance level in percent, or as a dash if it is not known."""
    level = levels.get(group)
    return NOTHING if level is None else f"{100 * level:.1f}"


def format_percent(score: Score, sign: str = "", unit: str = "") -> str:
    """Format a share in percent, as in `41.0 [35, 47]`, or `41.0 –` without an interval.

    Its ends are rounded outwards: an interval is never shown as narrower than it is.
    """
    text = f"{100 * score.value:{sign}z5.1f}{unit}"
    if score.interval is None:
        return f"{text} {NOTHING}"
    low, high = (round(100 * end, 6) for end in score.interval)
    return f"{text} [{math.floor(low):{sign}}, {math.ceil(high):{sign}}]"


def format_number(score: Score) -> str:
    """Format a mean with two digits, as in `2.50 [2.41, 2.59]`, or `2.50 –` without an interval."""
    low, high = score.ends
    ends = NOTHING if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
    return f"{score.value:5.2f} {ends}"


def result_line(result: EvaluationResult, split: str) -> str:
    """Return `Test accuracy 33.7 -> 46.6 % (+12.9 [+9, +17])`, the result on all examples."""
    adapter = result.adapter.accuracy[ALL]
    if BASE not in result.models:
        return f"{split.capitalize()} accuracy {format_percent(adapter).strip()} %"
    base, gain = result.models[BASE].accuracy[ALL], result.comparisons[BASE][ALL].gain
    shares = f"{_percent(base)} -> {_percent(adapter)} %"
    return f"{split.capitalize()} accuracy {shares} ({format_percent(gain, '+').strip()})"


def _new_table(title: str, caption: str | None = None) -> Table:
    left: Any = {"title_justify": "left", "caption_justify": "left"}
    narrow: Any = {"show_edge": False, "pad_edge": False, "collapse_padding": True}
    return Table(title=title, caption=caption, box=SIMPLE_HEAD, **left, **narrow)


def accuracy_table(
    result: EvaluationResult,
    *,
    title: str = TITLE,
    other: str = BASE,
    groups: Sequence[str] | None = None,
    note: str = P_NOTE,
) -> Table:
    """Return the table of accuracies in percent, with the groups as rows (`shown_groups`).

    If the adapter was compared with the `other` model, the table also has the gain in points, the
    examples that only the adapter (won) or only the other (lost) answers right, and McNemar's p.
    The last column is the chance level (`pixelis.data.example.chance_level`). The note about p is
    below the table.
    """
    compared = result.comparisons.get(other)
    table = _new_table(title, note if compared is not None else None)
    table.add_column("")
    table.add_column("n", justify="right")
    labels = [label for label in (other, "adapter") if label in result.models]
    for label in labels:
        table.add_column(f"{label} %")
    if compared is not None:
        table.add_column("gain in points")
        table.add_column("won/lost", justify="right")
        table.add_column("p", justify="right")
    table.add_column("chance %", justify="right")
    groups, chances = groups or shown_groups(result), chance_levels(result.examples)
    for position, name in enumerate(groups):
        cells = [name.removeprefix(TASK_PREFIX), str(result.adapter.accuracy[name].num)]
        cells += [format_percent(result.models[label].accuracy[name]) for label in labels]
        if compared is not None:
            pair = compared[name]
            cells.append(format_percent(pair.gain, "+"))
            cells.append(f"{pair.num_gained}/{pair.num_lost}")
            cells.append(format_p_value(pair.p_value))
        cells.append(format_chance(chances, name))
        # A gap around the total separates difficulties and tasks.
        table.add_row(*cells, end_section=ALL in (name, *groups[position + 1 : position + 2]))
    return table


def grid_table(grid: EvaluationResult, *, title: str) -> Table:
    """Return the table of accuracies of the cells of a grid (`grid_of`)."""
    cells = list(grid.adapter.accuracy)
    return accuracy_table(grid, title=title, groups=cells, note=grid_note(grid))


def measure_cells(
    result: EvaluationResult, group: str = ALL
) -> Iterator[tuple[str, int, list[str]]]:
    """Yield name, number of examples and one text per model for each measure of a group.

    Texts are percentages with 95 % intervals, or numbers of steps; empty without the measure.
    """
    tables = [evaluation.measures.get(group, {}) for evaluation in result.models.values()]
    for name in dict.fromkeys(name for table in tables for name in table):
        scores = [table.get(name) for table in tables]
        num = max(score.num for score in scores if score is not None)
        write = format_percent if is_share(name) else format_number
        yield name.replace("_", " "), num, ["" if s is None else write(s) for s in scores]


def measures_table(result: EvaluationResult, *, title: str, group: str = ALL) -> Table:
    """Return the table of a group's measures with one column per model (`measure_cells`)."""
    table = _new_table(title)
    table.add_column("")
    table.add_column("n", justify="right")
    for label in result.models:
        table.add_column(label)
    for name, num, cells in measure_cells(result, group):
        table.add_row(name, str(num), *cells)
    return table


def as_text(table: RenderableType) -> str:
    """Return a table as plain text of the width that it needs: no cell is cut or folded."""
    console = Console(file=io.StringIO(), width=UNLIMITED, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
