"""Figures of an evaluation: accuracies, failures, outcomes and confusion matrices by task."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pixelis.figures.chart import COLOURS, Chart

Row = Mapping[str, Any]

BASE_COLOUR = "#b0b7bf"
OUTCOMES = {  # from right to worst, with their colours
    "right": "#009E73",
    "wrong answer": "#E69F00",
    "called until the limit": "#CC79A7",
    "no answer": "#D55E00",
}
OTHER_COLOUR = "#56B4E9"
# With more different true answers, only right and wrong are counted.
MAX_TRUTHS = 10
OTHER, NOTHING = "another", "no answer"
MAX_NAME = 16
COLUMNS = 3
CELL = (330, 380)  # pixels of one task's matrix


def accuracy_bars(table: Sequence[Row]) -> Chart:
    """Return bars of base and adapter side by side by difficulty, with 95 % intervals.

    Args:
        table: Rows with `difficulty`, `model` (such as `base` and `adapter`), `accuracy`, `low` and
            `high` (the ends of the interval, or None), and `n` (the number of examples).
    """
    return _score_bars(table, "difficulty", "accuracy", "answer accuracy (0 to 1)")


def failure_bars(table: Sequence[Row]) -> Chart:
    """Return bars of base and adapter side by side by kind of failure, with 95 % intervals.

    Args:
        table: Rows as those of `accuracy_bars`, with `failure` and `share` (of rollouts).
    """
    label = "share of rollouts (0 to 1)"
    return _score_bars(table, "failure", "share", label)


def _score_bars(table: Sequence[Row], group: str, value: str, label: str) -> Chart:
    """Return bars of the values of several models by group, with 95 % intervals."""
    counts = {str(row[group]): row["n"] for row in table}
    groups = [f"{name}\n(n = {n})" for name, n in counts.items()]
    colours = (BASE_COLOUR, *COLOURS)
    data = []
    for i, model in enumerate(dict.fromkeys(str(row["model"]) for row in table)):
        rows = {str(row[group]): row for row in table if row["model"] == model}
        ordered = [rows[name] for name in counts]
        notes = [
            f"{model}, {name}: {row[value]:.3f} {_ends(row)}"
            for name, row in zip(counts, ordered, strict=True)
        ]
        values = [float(row[value]) for row in ordered]
        # A bar without an interval has no whiskers.
        above = [None if row["high"] is None else row["high"] - row[value] for row in ordered]
        below = [None if row["low"] is None else row[value] - row["low"] for row in ordered]
        ends = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
        trace = _bar(model, groups, values, colours[i % len(colours)], notes)
        data.append({**trace, "error_y": {"color": "#222222", **ends}})
    # Above 1, for the numbers over the bars.
    return _bar_chart(data, f"{label}; whiskers: 95 % interval", group, "group", 1.1)


def _ends(row: Row) -> str:
    return "–" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"


def outcome_bars(table: Sequence[Row]) -> Chart:
    """Return stacked shares of the outcomes of each group's rollouts.

    Args:
        table: Rows with `group` and `kind` (a key of `OUTCOMES` or another), one per rollout.
    """
    counts: dict[str, Counter[str]] = {}
    for row in table:
        counts.setdefault(str(row["group"]), Counter())[str(row["kind"])] += 1
    present = set().union(*counts.values())
    groups = [f"{group}\n(n = {kinds.total()})" for group, kinds in counts.items()]
    data = [
        _bar(
            kind,
            groups,
            [kinds[kind] / kinds.total() for kinds in counts.values()],
            OUTCOMES.get(kind, OTHER_COLOUR),
            [f"{group}: {n[kind]} of {n.total()} {kind}" for group, n in counts.items()],
        )
        for kind in (*OUTCOMES, *sorted(present - OUTCOMES.keys()))
        if kind in present
    ]
    label = "share of the adapter's rollouts (0 to 1)"
    return _bar_chart(data, label, "difficulty and task", "stack", 1)


def _bar(
    label: str, groups: Sequence[str], values: Sequence[float], colour: str, notes: Sequence[str]
) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": escape(label),
        "x": [escape(group).replace("\n", "<br>") for group in groups],
        "y": list(values),
        "marker": {"color": colour},
        "hovertext": [escape(note) for note in notes],
        "hoverinfo": "text",
    }


def _bar_chart(
    data: list[dict[str, Any]], label: str, group_label: str, barmode: str, high: float
) -> Chart:
    x_title, y_title = {"text": escape(group_label), "standoff": 12}, {"text": escape(label)}
    layout = {
        "barmode": barmode,
        "xaxis": {"title": x_title, "type": "category", "automargin": True},
        "yaxis": {"title": y_title, "range": [0, high], "gridcolor": "#e6e6e6"},
        "legend": {"traceorder": "normal"},
        "margin": {"l": 70, "r": 10, "t": 30, "b": 70},
        "paper_bgcolor": "white",
    }
    return Chart(data, layout)


def confusions(table: Sequence[Row]) -> Chart:
    """Return a matrix for each task: the answers given (columns) for each true answer (rows).

    Darker cells have a larger share of their row.

    Args:
        table: Rows with `task`, `truth`, `answer` (or None) and `right`, one for each rollout.
    """
    tasks = sorted({str(row["task"]) for row in table})
    rows, columns = math.ceil(len(tasks) / COLUMNS), min(COLUMNS, len(tasks))
    data, layout = [], {"margin": {"t": 50, "l": 90, "b": 90}, "paper_bgcolor": "white"}
    layout["grid"] = {"rows": rows, "columns": columns, "pattern": "independent", "ygap": 0.5}
    for number, task in enumerate(tasks, 1):
        suffix = "" if number == 1 else str(number)
        truths, answers, counts = _count([row for row in table if str(row["task"]) == task])
        data.append(
            {
                "type": "heatmap",
                "x": [escape(answer) for answer in answers],
                "y": [escape(truth) for truth in truths],
                "z": [[count / max(1, sum(line)) for count in line] for line in counts],
                "text": [[str(count or "") for count in line] for line in counts],
                "texttemplate": "%{text}",
                "hovertemplate": "true %{y}, answered %{x}: %{text}<extra></extra>",
                "colorscale": [[0, "#f7fbff"], [0.5, "#6baed6"], [1, "#08306b"]],
                "zmin": 0,
                "zmax": 1,
                "showscale": False,
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
            }
        )
        axis: dict[str, Any] = {"type": "category", "automargin": True}
        title = {"text": f"<b>{escape(task)}</b>", "standoff": 8}
        layout[f"xaxis{suffix}"] = {**axis, "title": title, "side": "bottom"}
        layout[f"yaxis{suffix}"] = {**axis, "title": {"text": "true"}, "autorange": "reversed"}
    return Chart(data, layout, (CELL[0] * columns, CELL[1] * rows))


def _count(rows: Sequence[Row]) -> tuple[list[str], list[str], list[list[int]]]:
    """Return the true answers, the given ones, and their counts: one row for each true answer."""
    truths = sorted({_name(row["truth"]) for row in rows}, key=_order)
    is_open = len(truths) > MAX_TRUTHS or len(truths) > len(rows) / 2
    if is_open:
        truths = ["truth"]
    answers = ["right"] if is_open else truths
    counter: Counter[tuple[str, str]] = Counter()
    for row in rows:
        truth, answer = _name(row["truth"]), _name(row["answer"])
        if row["answer"] is None:
            answer = NOTHING
        elif row["right"]:  # regardless of its spelling
            answer = "right" if is_open else truth
        # A wrong answer never counts as the truth, even if both are equal after shortening.
        elif is_open or answer not in truths or answer == truth:
            answer = OTHER
        counter["truth" if is_open else truth, answer] += 1
    answers = [*answers, OTHER, NOTHING]
    return truths, answers, [[counter[truth, answer] for answer in answers] for truth in truths]


def _name(value: Any) -> str:
    text = " ".join(str(value).casefold().split())
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 3]}..."


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (10**10, name)
