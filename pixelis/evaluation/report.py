"""The result of an evaluation as a table for the console, rows for files, numbers for charts."""

import io
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.groups import strata
from pixelis.evaluation.measures_report import evaluated_models, measure_values
from pixelis.evaluation.metrics import ALL, TASK_PREFIX, Comparison, Score

Scores = Mapping[str, Score]
Comparisons = Mapping[str, Comparison]
TITLE = "Answer accuracy with 95 % intervals"
P_NOTE = "p: McNemar's exact test, two-sided, not corrected for several groups"


def _groups(table: Scores) -> list[str]:
    """The groups that are shown: difficulties, all, tasks; the others are left to the rows."""
    tasks = sorted(name for name in table if name.startswith(TASK_PREFIX))
    return [name for name in (*strata(table), ALL, *tasks) if name in table]


def as_rows(
    base: Scores | None,
    adapter: Scores,
    comparison: Comparisons | None = None,
    *,
    against: Scores | None = None,
    against_comparison: Comparisons | None = None,
) -> list[dict[str, Any]]:
    """One flat dict a group, those that are not shown included; shares are in [0, 1].

    The gain over the base is `gain`, `gained`, `lost`, `p_value`; over a second adapter the same
    names end in `_over_against`.
    """
    cells = sorted(name for name in adapter if name not in _groups(adapter))
    rows = []
    for name in (*_groups(adapter), *cells):
        row: dict[str, Any] = {"group": name, "n": adapter[name].num}
        for label, table in (("base", base), ("against", against), ("adapter", adapter)):
            if table is not None:
                score = table[name]
                row |= {f"{label}_accuracy": score.value}
                row |= {f"{label}_low": score.low, f"{label}_high": score.high}
        for end, pairs in (("", comparison), ("_over_against", against_comparison)):
            if pairs is not None:
                row |= {f"{key}{end}": value for key, value in _as_row(pairs[name]).items()}
        rows.append(row)
    return rows


def _as_row(compared: Comparison) -> dict[str, float]:
    return {
        "gain": compared.gain.value,
        "gain_low": compared.gain.low,
        "gain_high": compared.gain.high,
        "gained": compared.num_gained,
        "lost": compared.num_lost,
        "p_value": compared.p_value,
    }


def result_rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """`as_rows` of an evaluation's result."""
    return as_rows(
        result.base.accuracy if result.base else None,
        result.adapter.accuracy,
        result.comparison,
        against=result.against.accuracy if result.against else None,
        against_comparison=result.against_comparison,
    )


def shown_p(p_value: float) -> str:
    """A p-value for people: three digits, or that it is below them."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _points(score: Score, sign: str = "") -> str:
    low, high = 100 * score.low, 100 * score.high
    return f"{100 * score.value:{sign}5.1f} [{low:{sign}.0f}, {high:{sign}.0f}]"


def compare_table(
    base: Scores | None,
    adapter: Scores,
    comparison: Comparisons | None = None,
    *,
    title: str = TITLE,
    label: str = "base",
) -> Table:
    """Difficulties, all and tasks as rows; base and adapter in percent, and the gain in points.

    Beside the gain: examples that only the adapter (won) or only the base (lost) answers right, and
    McNemar's exact p of these.

    Args:
        base: the base's table; without one its column is left out.
        adapter: the adapter's table.
        comparison: of both; adds the gain with its interval, won, lost and p.
        title: above the table.
        label: of the base's column.
    """
    # Narrow enough for 100 columns; in 80 the first wraps.
    table = Table(
        title=title,
        title_justify="left",
        caption=P_NOTE if comparison is not None else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", overflow="fold")
    table.add_column("n", justify="right")
    for name, scores in ((label, base), ("adapter", adapter)):
        if scores is not None:
            table.add_column(f"{name} %", no_wrap=True)
    if comparison is not None:
        table.add_column("gain in points", no_wrap=True)
        table.add_column("won/ lost", justify="right", min_width=5)
        table.add_column("p", justify="right", no_wrap=True)
    names = _groups(adapter)
    for position, name in enumerate(names):
        cells = [name.removeprefix(TASK_PREFIX), str(adapter[name].num)]
        cells += [_points(scores[name]) for scores in (base, adapter) if scores is not None]
        if comparison is not None:
            compared = comparison[name]
            cells.append(_points(compared.gain, "+"))
            cells.append(f"{compared.num_gained}/{compared.num_lost}")
            cells.append(shown_p(compared.p_value))
        # Room around the total, so that difficulties and tasks do not run into each other.
        last = ALL in (name, *names[position + 1 : position + 2])
        table.add_row(*cells, end_section=last)
    return table


def as_text(table: Table) -> str:
    """A table as plain text, as wide as it needs to be."""
    console = Console(file=io.StringIO(), width=200, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def metric_values(table: Scores, prefix: str) -> dict[str, float]:
    """Flat names: `<prefix>/<group>/answer_accuracy`, and the same with `_low` and `_high`."""
    values: dict[str, float] = {}
    for name, score in table.items():
        key = f"{prefix}/{name}/answer_accuracy"
        values |= {key: score.value, f"{key}_low": score.low, f"{key}_high": score.high}
    return values


def gain_values(comparison: Comparisons, prefix: str) -> dict[str, float]:
    """Flat names: `<prefix>/<group>`, and the same with `_low`, `_high` and `_p_value`."""
    values: dict[str, float] = {}
    for name, compared in comparison.items():
        key, gain = f"{prefix}/{name}", compared.gain
        values |= {key: gain.value, f"{key}_low": gain.low, f"{key}_high": gain.high}
        values[f"{key}_p_value"] = compared.p_value
    return values


def rate_values(rates: Mapping[str, Mapping[str, float]], prefix: str) -> dict[str, float]:
    """Flat names: `<prefix>/<group>/<rate>`, for difficulties and all."""
    return {
        f"{prefix}/{name}/{rate}": value
        for name in (*strata(rates), ALL)
        for rate, value in rates.get(name, {}).items()
    }


def result_values(result: EvaluationResult, split: str) -> dict[str, float]:
    """Every number of an evaluation: `<split>/adapter/...`, `<split>/base/...`, `<split>/gain/...`.

    As in `test/adapter/simple/answer_accuracy` and `test/gain/hard`; where a second adapter was
    rolled out, `<split>/against/...` and `<split>/gain_over_against/...` as well.
    """
    values = metric_values(result.adapter.accuracy, f"{split}/adapter")
    values |= rate_values(result.adapter.rates, f"{split}/adapter")
    if result.base is not None:
        values |= metric_values(result.base.accuracy, f"{split}/base")
        values |= rate_values(result.base.rates, f"{split}/base")
    if result.comparison is not None:
        values |= gain_values(result.comparison, f"{split}/gain")
    if result.against is not None:
        values |= metric_values(result.against.accuracy, f"{split}/against")
        values |= rate_values(result.against.rates, f"{split}/against")
    if result.against_comparison is not None:
        values |= gain_values(result.against_comparison, f"{split}/gain_over_against")
    for label, evaluation in evaluated_models(result).items():
        values |= measure_values(evaluation, f"{split}/{label}")
    return values


def result_table(result: EvaluationResult, *, title: str = TITLE) -> Table:
    """`compare_table` of an evaluation's result."""
    base = result.base.accuracy if result.base else None
    return compare_table(base, result.adapter.accuracy, result.comparison, title=title)


def against_table(result: EvaluationResult, *, title: str) -> Table | None:
    """`compare_table` of the second adapter and the first; None where there is no second."""
    if result.against is None:
        return None
    return compare_table(
        result.against.accuracy,
        result.adapter.accuracy,
        result.against_comparison,
        title=title,
        label="against",
    )
