"""Confusion matrices of an evaluation: the answers given for each true answer, by task."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure

from pixelis.figures.draw_html import plotly_page
from pixelis.figures.draw_png import DPI

# With more different true answers, only right and wrong are counted.
MAX_TRUTHS = 10
OTHER, NOTHING = "another", "no answer"
MAX_NAME = 16
COLUMNS = 3
CELL = (330, 300)  # pixels of one task's grid
COLOUR_MAP = "Blues"


@dataclass(frozen=True)
class Confusion:
    """One task: counts[i][j] rollouts answered `answers[j]` where `truths[i]` was right."""

    task: str
    truths: Sequence[str]
    answers: Sequence[str]
    counts: Sequence[Sequence[int]]


def confusions(table: Sequence[Mapping[str, Any]]) -> list[Confusion]:
    """Count the answers of each task.

    Args:
        table: Rows with `task`, `truth`, `answer` (or None) and `right`, one for each rollout.
    """
    tasks = sorted({str(row["task"]) for row in table})
    return [_confusion(task, [row for row in table if str(row["task"]) == task]) for task in tasks]


def _confusion(task: str, rows: Sequence[Mapping[str, Any]]) -> Confusion:
    truths = sorted({_name(row["truth"]) for row in rows}, key=_order)
    if len(truths) > MAX_TRUTHS or len(truths) > len(rows) / 2:
        truths = ["truth"]
        counter = Counter((truths[0], _kind(row)) for row in rows)
        answers = ["right", OTHER, NOTHING]
    else:
        counter = Counter((_name(row["truth"]), _answer(row, truths)) for row in rows)
        answers = [*truths, OTHER, NOTHING]
    counts = [[counter[truth, answer] for answer in answers] for truth in truths]
    return Confusion(task, truths, answers, counts)


def _kind(row: Mapping[str, Any]) -> str:
    if row["answer"] is None:
        return NOTHING
    return "right" if row["right"] else OTHER


def _answer(row: Mapping[str, Any], truths: Sequence[str]) -> str:
    if row["answer"] is None:
        return NOTHING
    if row["right"]:  # regardless of its spelling
        return _name(row["truth"])
    answer = _name(row["answer"])
    # A wrong answer never counts as the truth, even if both are equal after shortening.
    return answer if answer in truths and answer != _name(row["truth"]) else OTHER


def _name(value: Any) -> str:
    text = " ".join(str(value).casefold().split())
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 3]}..."


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (10**10, name)


def confusion_figure(grids: Sequence[Confusion]) -> Figure:
    """Draw all tasks side by side; darker cells have a larger share of their row."""
    rows = math.ceil(len(grids) / COLUMNS)
    width, height = CELL[0] * min(COLUMNS, len(grids)), CELL[1] * rows
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    grid_axes = figure.subplots(rows, min(COLUMNS, len(grids)), squeeze=False).flat
    for axes, grid in zip(grid_axes, grids, strict=False):
        shares = _shares(grid)
        axes.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
        for i, line in enumerate(grid.counts):
            for j, count in enumerate(line):
                if count:
                    colour = "white" if shares[i][j] > 0.6 else "black"
                    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
                    axes.text(j, i, str(count), color=colour, **style)
        axes.set_title(grid.task, fontsize=10, parse_math=False)
        axes.set_xticks(range(len(grid.answers)), grid.answers, rotation=60, ha="right")
        axes.set_yticks(range(len(grid.truths)), grid.truths)
        axes.tick_params(labelsize=7.5)
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)
        axes.set_xlabel("answered", fontsize=8)
        axes.set_ylabel("true", fontsize=8)
    for axes in list(grid_axes):
        axes.set_axis_off()
    return figure


def confusion_page(grids: Sequence[Confusion], title: str) -> str:
    """Return the same as an interactive HTML page."""
    rows = math.ceil(len(grids) / COLUMNS)
    data, layout = [], {"margin": {"t": 50, "l": 90, "b": 90}, "paper_bgcolor": "white"}
    layout |= {"grid": {"rows": rows, "columns": COLUMNS, "pattern": "independent", "ygap": 0.5}}
    for number, grid in enumerate(grids, 1):
        suffix = "" if number == 1 else str(number)
        names = [[escape(name) for name in some] for some in (grid.answers, grid.truths)]
        data.append(
            {
                "type": "heatmap",
                "x": names[0],
                "y": names[1],
                "z": _shares(grid),
                "text": [[str(count or "") for count in line] for line in grid.counts],
                "texttemplate": "%{text}",
                "hovertemplate": "true %{y}, answered %{x}: %{text}<extra></extra>",
                "colorscale": [[0, "#f7fbff"], [0.5, "#6baed6"], [1, "#08306b"]],  # COLOUR_MAP
                "zmin": 0,
                "zmax": 1,
                "showscale": False,
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
            }
        )
        layout[f"xaxis{suffix}"] = {
            "type": "category",
            "title": {"text": f"<b>{escape(grid.task)}</b>", "standoff": 8},
            "side": "bottom",
            "automargin": True,
        }
        layout[f"yaxis{suffix}"] = {
            "type": "category",
            "autorange": "reversed",
            "automargin": True,
        }
    return plotly_page({"data": data, "layout": layout}, title, max(420, 380 * rows))


def _shares(grid: Confusion) -> list[list[float]]:
    """Return each count as a share of its row."""
    return [[count / max(1, sum(line)) for count in line] for line in grid.counts]
