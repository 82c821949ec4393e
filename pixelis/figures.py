"""Figures of a curriculum, drawn from its events and measurements, without pyplot's state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

Event = Mapping[str, Any]
Strata = Sequence[tuple[int, Mapping[str, float]]]

SIZE = (10.0, 5.6)  # inches at 100 dots: 1000 x 560 pixels
# Okabe and Ito's colours, told apart by every kind of colour vision; the order is easy to hard.
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
BANDS = ("#eef3f8", "#dbe6f0", "#c8d8e6", "#b4cadc", "#a1bcd2")
TRIAL: dict[str, Any] = {
    "facecolor": "none",
    "edgecolor": "#8fa6ba",
    "hatch": "///",
    "linewidth": 0,
}
MARKS = {
    "advance": ("^", "#009E73", "advance"),
    "rollback": ("v", "#B2182B", "rollback"),
    "trial": (">", "#56B4E9", "trial begins"),
    "hold": ("s", "#7f7f7f", "hold"),
}


@dataclass(frozen=True)
class Visit:
    """A span of steps under one stage and one mix; `trial` while the next stage is only tried."""

    stage: str
    begin: int
    end: int
    mix: Mapping[str, float]
    trial: bool


def visits(events: Sequence[Event], max_steps: int) -> list[Visit]:
    """The spans that events cut a training into, in order; the last one ends at `max_steps`."""
    spans: list[Visit] = []
    here: Visit | None = None
    before_trial: Mapping[str, float] = {}
    for event in events:
        kind, step = event["kind"], int(event["step"])
        mix = event.get("mix") or (here.mix if here else {})
        if kind in ("start", "advance"):
            following = Visit(str(event["to_stage"] or event["from_stage"]), step, step, mix, False)
        elif kind == "trial" and here:
            # The mix is already the next stage's while the stage is still the old one.
            before_trial = here.mix
            following = Visit(here.stage, step, step, mix, True)
        elif kind == "rollback" and here and here.trial:
            following = Visit(here.stage, step, step, before_trial, False)
        else:
            continue
        if here and step > here.begin:
            spans.append(replace(here, end=step))
        here = following
    if here and max_steps > here.begin:
        spans.append(replace(here, end=max_steps))
    return spans


def timeline(
    events: Sequence[Event],
    strata: Strata,
    loss: Sequence[tuple[int, float]] | None = None,
    *,
    max_steps: int,
    mixes: Strata | None = None,
    min_performance_for_advance: float | None = None,
    metric: str = "performance",
) -> Figure:
    """How a curriculum went: stages as bands, events as marks, performance as lines.

    Args:
        events: The run's events, as `CurriculumEvent.to_dict` gives them.
        strata: Performance by difficulty at the steps where it was measured.
        loss: Training loss by step, drawn below when given.
        max_steps: The last step of the x axis.
        mixes: For a strategy without stages, the mix after each step at which it changed; drawn
            in the place of stages.
        min_performance_for_advance: Drawn as a dotted line when given.
        metric: What the strata measure, for the axis label.

    Returns:
        A figure of 1000 x 560 pixels.
    """
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    heights = [0.6 if mixes is None else 1.2, 4.0, *([1.3] if loss else [])]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    lane, lines = axes[0], axes[1]
    handles: list[Artist] = []
    if mixes is None:
        spans = visits(events, max_steps)
        handles += _bands(axes, spans, max_steps) + _marks(lane, lines, events)
        pieces = [_current_mix(strata, s.mix, s.begin, s.end) for s in spans]
    else:
        _mix_lane(axes, mixes, max_steps)
        # One line: a mix may change at every step, and no piece of it would hold two points.
        pieces = [[]]
        for step, values in strata:
            held = [mix for at, mix in mixes if at < step][-1:] or [mixes[0][1]]
            pieces[0] += _current_mix([(step, values)], held[0], step, step)
    handles += _strata_lines(lines, strata, pieces)
    if min_performance_for_advance is not None:
        label = f"minimum to advance ({min_performance_for_advance:g})"
        level = min_performance_for_advance
        handles.append(lines.axhline(level, label=label, color="#444444", linestyle=":"))
    lines.set_ylim(-0.02, 1.02)
    lines.set_ylabel(f"{metric.replace('_', ' ')} (0 to 1)")
    lines.grid(axis="y", color="#ffffff", linewidth=0.8)
    if loss:
        axes[2].plot(*zip(*loss, strict=True), color="#555555", linewidth=1.0)
        axes[2].set_ylabel("training loss")
    axes[-1].set_xlim(0, max_steps)
    axes[-1].set_xlabel("optimiser step")
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def accuracy(table: Sequence[Mapping[str, Any]], *, metric: str = "answer accuracy") -> Figure:
    """Base and adapter side by side by difficulty, with 95 % intervals.

    Args:
        table: Rows with `difficulty`, `model` (such as `base` and `adapter`), `accuracy`, `low` and
            `high` (the interval's ends), and optionally `n` (the number of examples).
        metric: The axis label.

    Returns:
        A figure of 1000 x 560 pixels.
    """
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    axes = figure.subplots()
    difficulties = list(dict.fromkeys(str(row["difficulty"]) for row in table))
    models = list(dict.fromkeys(str(row["model"]) for row in table))
    width = 0.8 / max(1, len(models))
    for i, model in enumerate(models):
        rows = [row for row in table if row["model"] == model]
        shift = (i - (len(models) - 1) / 2) * width
        at = [difficulties.index(str(row["difficulty"])) + shift for row in rows]
        values = [float(row["accuracy"]) for row in rows]
        below = [max(0.0, v - float(row["low"])) for v, row in zip(values, rows, strict=True)]
        above = [max(0.0, float(row["high"]) - v) for v, row in zip(values, rows, strict=True)]
        colour = ("#b0b7bf", *COLOURS)[i % 7]
        axes.bar(at, values, width * 0.94, label=model, color=colour)
        axes.errorbar(at, values, [below, above], fmt="none", ecolor="#222222", capsize=5)
        for x, value, up in zip(at, values, above, strict=True):
            axes.text(x, value + up + 0.015, f"{value:.2f}", ha="center", fontsize=10)
    counts = {str(row["difficulty"]): row["n"] for row in table if row.get("n") is not None}
    labels = [f"{d}\n(n = {counts[d]})" if d in counts else d for d in difficulties]
    axes.set_xticks(range(len(difficulties)), labels)
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel(f"{metric} (0 to 1); whiskers: 95 % interval")
    axes.set_xlabel("difficulty")
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def samples_drawn(
    counts: Sequence[tuple[int, Mapping[str, int]]], events: Sequence[Event] = (), *, max_steps: int
) -> Figure:
    """Examples drawn so far by difficulty, as a stacked area over steps.

    Args:
        counts: Cumulative counts by difficulty at steps, in order.
        events: When given, advances are marked.
        max_steps: The last step of the x axis.

    Returns:
        A figure of 1000 x 560 pixels.
    """
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(name for _, values in counts for name in values))
    steps = [step for step, _ in counts]
    layers = [[values.get(name, 0) for _, values in counts] for name in names]
    if names:
        colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
        axes.stackplot(steps, layers, labels=names, colors=colours, alpha=0.85)
    for event in events:
        if event["kind"] == "advance":
            axes.axvline(int(event["step"]), color="#222222", linestyle="--", linewidth=1)
            label = f" {event['to_stage']}"
            where = axes.get_xaxis_transform()
            axes.text(int(event["step"]), 0.96, label, transform=where, fontsize=9)
    axes.set_xlim(0, max_steps)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("examples drawn so far")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, reverse=True)
    return figure


def _bands(axes: Sequence[Axes], spans: Sequence[Visit], max_steps: int) -> list[Artist]:
    """Colour every span by its stage, hatch trials, and name the stages in the lane on top."""
    stages = list(dict.fromkeys(span.stage for span in spans))
    for span in spans:
        colour = BANDS[stages.index(span.stage) % len(BANDS)]
        for each in axes:
            each.axvspan(span.begin, span.end, facecolor=colour, edgecolor="white", zorder=0)
            if span.trial:
                each.axvspan(span.begin, span.end, zorder=0.5, **TRIAL)
        # A name that is wider than its band would run into the next one; the legend has them all.
        if len(span.stage) * 0.013 * max_steps < span.end - span.begin and not span.trial:
            middle = (span.begin + span.end) / 2
            axes[0].text(middle, 0.74, span.stage, ha="center", va="center", fontsize=10)
    axes[0].set_ylim(0, 1)
    axes[0].set_yticks([])
    axes[0].spines[:].set_visible(False)
    axes[0].tick_params(bottom=False)
    patches: list[Artist] = [
        Patch(facecolor=BANDS[i % len(BANDS)], edgecolor="#9fb3c4", label=f"stage {name}")
        for i, name in enumerate(stages)
    ]
    if any(span.trial for span in spans):
        patches.append(Patch(label="trial of the next mix", **TRIAL))
    return patches


def _mix_lane(axes: Sequence[Axes], mixes: Strata, max_steps: int) -> None:
    """Stack the shares of the mix in the lane on top, in the colours of the difficulties."""
    names = list(dict.fromkeys(name for _, mix in mixes for name in mix))
    held = [*mixes, (max_steps, mixes[-1][1])]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    shares = [[mix.get(name, 0.0) for _, mix in held] for name in names]
    axes[0].stackplot([step for step, _ in held], shares, colors=colours, alpha=0.75, step="post")
    axes[0].set(ylim=(0, 1), yticks=[0, 1], ylabel="mix")
    for each in axes[1:]:
        each.set_facecolor(BANDS[0])


def _marks(lane: Axes, lines: Axes, events: Sequence[Event]) -> list[Artist]:
    """Put every decision on the lane, with a thin line down through the performance."""
    handles: list[Artist] = []
    for kind, (marker, colour, label) in MARKS.items():
        steps = [int(event["step"]) for event in events if event["kind"] == kind]
        if steps:
            # A hold comes at the step of a rollback: beside it, not over it.
            y = 0.1 if kind == "hold" else 0.3
            style: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "linestyle": "none",
                "markersize": 9,
            }
            handles += lane.plot(steps, [y] * len(steps), label=label, clip_on=False, **style)
        if kind in ("advance", "rollback"):
            for step in steps:
                lines.axvline(step, color=colour, linewidth=0.9, alpha=0.6, zorder=1)
    return handles


def _current_mix(
    strata: Strata, mix: Mapping[str, float], begin: int, end: int
) -> list[tuple[int, float]]:
    """The performance of a mix at the steps of a span where all that it uses was measured."""
    used = {name: share for name, share in mix.items() if share}
    return [
        (step, sum(share * values[name] for name, share in used.items()))
        for step, values in strata
        if used and begin <= step <= end and all(name in values for name in used)
    ]


def _strata_lines(
    axes: Axes, strata: Strata, pieces: Sequence[Sequence[tuple[int, float]]]
) -> list[Artist]:
    """A thin line for every difficulty; a bold one for the mix, in the pieces that it has."""
    names = list(dict.fromkeys(name for _, values in strata for name in values))
    handles: list[Artist] = []
    for i, name in enumerate(names):
        points = [(step, values[name]) for step, values in strata if name in values]
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "linewidth": 1.5,
            "marker": ".",
            "label": name,
        }
        handles += axes.plot(*zip(*points, strict=True), **style)
    for piece in pieces:
        if piece:
            axes.plot(*zip(*piece, strict=True), color="#111111", linewidth=3.0, zorder=3)
    if strata and pieces:
        handles.append(Line2D([], [], color="#111111", linewidth=3.0, label="current mix"))
    return handles
