"""Bar charts of an evaluation, as a PNG and as an interactive page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelis.figures.chart import COLOURS, SIZE
from pixelis.figures.draw_html import plotly_page
from pixelis.figures.draw_png import DPI

MAX_HORIZONTAL = 6  # the names of more groups are slanted to fit
UPPER_LIMIT = 1.1  # of an axis of shares, with space for numbers above the bars
BASE_COLOUR = "#b0b7bf"
OUTCOMES = {  # from right to worst, with their colours
    "right": "#009E73",
    "wrong answer": "#E69F00",
    "called until the limit": "#CC79A7",
    "no answer": "#D55E00",
}
OTHER_COLOUR = "#56B4E9"


@dataclass(frozen=True)
class Series:
    """The bars of one colour: for each group a height, an interval, and a hover text."""

    label: str
    values: Sequence[float]
    colour: str
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Bars:
    """Groups with one bar of every series, side by side or stacked."""

    groups: Sequence[str]
    series: Sequence[Series]
    label: str
    group_label: str = ""
    stacked: bool = False
    size: tuple[int, int] = SIZE


def accuracy_bars(
    table: Sequence[Mapping[str, Any]],
    *,
    metric: str = "answer accuracy",
    group_label: str = "difficulty",
) -> Bars:
    """Return bars of base and adapter side by side by difficulty, with 95 % intervals.

    Args:
        table: Rows with `difficulty`, `model` (such as `base` and `adapter`), `accuracy`, `low` and
            `high` (the ends of the interval), and optionally `n` (the number of examples).
        metric: The label of the axis.
        group_label: The label of the groups.
    """
    groups = list(dict.fromkeys(str(row["difficulty"]) for row in table))
    models = list(dict.fromkeys(str(row["model"]) for row in table))
    counts = {str(row["difficulty"]): row["n"] for row in table if row.get("n") is not None}
    series = []
    for i, model in enumerate(models):
        rows = {str(row["difficulty"]): row for row in table if row["model"] == model}
        ordered = [rows[group] for group in groups]
        series.append(
            Series(
                model,
                [float(row["accuracy"]) for row in ordered],
                (BASE_COLOUR, *COLOURS)[i % (len(COLOURS) + 1)],
                [float(row["low"]) for row in ordered],
                [float(row["high"]) for row in ordered],
                [
                    f"{model}, {group}: {row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                    for group, row in zip(groups, ordered, strict=True)
                ],
            )
        )
    return Bars(
        groups=[f"{g}\n(n = {counts[g]})" if g in counts else g for g in groups],
        series=series,
        label=f"{metric} (0 to 1); whiskers: 95 % interval",
        group_label=group_label,
    )


def outcome_bars(table: Sequence[Mapping[str, Any]]) -> Bars:
    """Return stacked shares of the outcomes of each group's rollouts.

    Args:
        table: Rows with `group` and `kind` (a key of `OUTCOMES` or another), one per rollout.
    """
    groups = list(dict.fromkeys(str(row["group"]) for row in table))
    present = {str(row["kind"]) for row in table}
    kinds = [kind for kind in OUTCOMES if kind in present] + sorted(present - OUTCOMES.keys())
    counts = {
        group: [str(row["kind"]) for row in table if str(row["group"]) == group] for group in groups
    }
    series = [
        Series(
            kind,
            [counts[group].count(kind) / len(counts[group]) for group in groups],
            OUTCOMES.get(kind, OTHER_COLOUR),
            notes=[
                f"{group}: {counts[group].count(kind)} of {len(counts[group])} {kind}"
                for group in groups
            ],
        )
        for kind in kinds
    ]
    label = "share of the adapter's rollouts (0 to 1)"
    groups_with_counts = [f"{group}\n(n = {len(counts[group])})" for group in groups]
    return Bars(groups_with_counts, series, label, "difficulty and task", stacked=True)


def bars_figure(bars: Bars) -> Figure:
    """Draw a matplotlib figure of `bars.size` pixels."""
    width, height = bars.size
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    thickness = 0.7 if bars.stacked else 0.8 / max(1, len(bars.series))
    bottom = [0.0] * len(bars.groups)
    for i, series in enumerate(bars.series):
        shift = 0.0 if bars.stacked else (i - (len(bars.series) - 1) / 2) * thickness
        at = [index + shift for index in range(len(bars.groups))]
        style: dict[str, Any] = {"label": series.label, "color": series.colour}
        axes.bar(at, series.values, thickness * 0.94, bottom=bottom, **style)
        if bars.stacked:
            bottom = [low + value for low, value in zip(bottom, series.values, strict=True)]
        else:
            _whiskers(axes, at, series)
    axes.set_xticks(range(len(bars.groups)), bars.groups)
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
        if len(bars.groups) > MAX_HORIZONTAL:
            text.set(rotation=25, ha="right")
    axes.set_ylim(0, 1 if bars.stacked else UPPER_LIMIT)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel(bars.label)
    axes.set_xlabel(bars.group_label)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _whiskers(axes: Axes, at: Sequence[float], series: Series) -> None:
    low, high = series.low or series.values, series.high or series.values
    below = [max(0.0, v - end) for v, end in zip(series.values, low, strict=True)]
    above = [max(0.0, end - v) for v, end in zip(series.values, high, strict=True)]
    if series.low:
        axes.errorbar(at, series.values, [below, above], fmt="none", ecolor="#222222", capsize=5)
    for x, value, up in zip(at, series.values, above, strict=True):
        axes.text(x, value + up + 0.015, f"{value:.2f}", ha="center", fontsize=10)


def bars_page(bars: Bars, title: str) -> str:
    """Return the same as an interactive HTML page."""
    data = []
    for series in bars.series:
        groups = [escape(group).replace("\n", "<br>") for group in bars.groups]
        trace: dict[str, Any] = {
            "type": "bar",
            "name": escape(series.label),
            "x": groups,
            "y": list(series.values),
            "marker": {"color": series.colour},
        }
        if series.notes:
            trace |= {"hovertext": [escape(note) for note in series.notes], "hoverinfo": "text"}
        if series.low and series.high:
            ends = zip(series.values, series.low, series.high, strict=True)
            pairs = [(max(0.0, high - v), max(0.0, v - low)) for v, low, high in ends]
            up, down = zip(*pairs, strict=True)
            whisker = {"type": "data", "symmetric": False, "color": "#222222"}
            trace["error_y"] = {**whisker, "array": list(up), "arrayminus": list(down)}
        data.append(trace)
    layout = {
        "barmode": "stack" if bars.stacked else "group",
        "xaxis": {
            "title": {"text": escape(bars.group_label), "standoff": 12},
            "type": "category",
            "automargin": True,
        },
        "yaxis": {
            "title": {"text": escape(bars.label)},
            "range": [0, 1 if bars.stacked else UPPER_LIMIT],
        },
        "legend": {"traceorder": "normal"},
        "margin": {"l": 70, "r": 10, "t": 30, "b": 70},
        "paper_bgcolor": "white",
    }
    return plotly_page({"data": data, "layout": layout}, title, bars.size[1])
