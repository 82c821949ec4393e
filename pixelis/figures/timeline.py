"""The timeline: stages as bands, events as marks, performance as lines, thresholds dotted."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from html import escape

from pixelis.figures.chart import (
    BANDS,
    DARK,
    GREY,
    SIZE,
    Area,
    Band,
    Chart,
    Item,
    Line,
    Marks,
    Panel,
    Point,
    Text,
    VerticalLine,
    colour_of,
)
from pixelis.figures.downsample import downsample_rows
from pixelis.figures.history import Event, StageSpan, Strata, TrainingHistory, stage_spans

HATCH = "#8fa6ba"
MARKS = {  # event kind -> symbol, colour, label
    "advance": ("up", "#009E73", "advance"),
    "rollback": ("down", "#B2182B", "rollback"),
    "trial": ("right", "#56B4E9", "trial begins"),
    "hold": ("square", "#7f7f7f", "hold"),
    "restore": ("square", "#B2182B", "weights put back"),
}
THRESHOLD = "#B2182B"
HEIGHT_EACH = 290  # pixels of one training in a comparison


def timeline(history: TrainingHistory) -> Chart:
    """Chart a curriculum, with the training loss below it if there is any."""
    stages = stage_names([history])
    panels = timeline_panels(history, stages)
    if history.training_loss:
        items: list[Item] = [*stage_bands(history, stages)]
        items.append(Line("training loss", history.training_loss, GREY, width=1.0))
        panels.append(Panel(items, label="training loss\n(nats per token)", height=1.3))
    return Chart(panels, history.max_steps)


def compare_timelines(histories: Mapping[str, TrainingHistory]) -> Chart:
    """Chart several trainings, by name, above each other, in the same colours."""
    stages = stage_names(list(histories.values()))
    panels: list[Panel] = []
    for name, history in histories.items():
        panels += timeline_panels(history, stages, title=name)
    last = max(history.max_steps for history in histories.values())
    return Chart(panels, last, size=(SIZE[0], 60 + HEIGHT_EACH * len(histories)))


def stage_names(histories: Sequence[TrainingHistory]) -> list[str]:
    """Return the stages of several trainings in the order of their first appearance."""
    return list(
        dict.fromkeys(
            str(event["to_stage"] or event["from_stage"])
            for history in histories
            for event in history.events
            if history.rules.has_stages and event["kind"] in ("start", "advance")
        )
    )


def timeline_panels(
    history: TrainingHistory, stages: Sequence[str], title: str = ""
) -> list[Panel]:
    """Return a lane with stages (or the mix) and events, and a panel with performance below it."""
    rules, bands = history.rules, stage_bands(history, stages)
    if len(history.events) < history.num_events:
        shown = f"{len(history.events):,} of {history.num_events:,} events"
        title = f"{title}: {shown}" if title else f"{shown}; all: curriculum/events.json"
    if rules.has_stages:
        items: list[Item] = [*bands, *_stage_labels(history), *_marks(history)]
        lane = Panel(items, height=0.6, low=0, high=1, ticks=(), title=title)
    else:
        lane = Panel(
            _mix_areas(history), "mix", height=1.2, low=0, high=1, ticks=(0, 1), title=title
        )
    lines: list[Item] = [*bands, *_decision_lines(history), *difficulty_lines(history.strata)]
    lines += _mix_lines(history)
    lines += _thresholds(history)
    label = f"{rules.metric.replace('_', ' ')} (0 to 1)"
    return [lane, Panel(lines, label=label, low=-0.02, high=1.02)]


def stage_bands(history: TrainingHistory, stages: Sequence[str]) -> list[Band]:
    """Return a band for each span in the colour of its stage, and a hatched one for trials."""
    spans = _spans(history)
    bands = [
        Band(
            f"stage {span.stage}",
            span.begin,
            span.end,
            BANDS[stages.index(span.stage) % len(BANDS)],
        )
        for span in spans
    ]
    trial = "trial of the next mix"
    return bands + [Band(trial, s.begin, s.end, HATCH, hatched=True) for s in spans if s.trial]


def _spans(history: TrainingHistory) -> list[StageSpan]:
    return stage_spans(history.events, history.reached) if history.rules.has_stages else []


def _stage_labels(history: TrainingHistory) -> list[Text]:
    """Return the names of stages whose span is wide enough; the legend has all names."""
    return [
        Text((span.begin + span.end) / 2, 0.74, span.stage)
        for span in _spans(history)
        if len(span.stage) * 0.013 * history.max_steps < span.end - span.begin and not span.trial
    ]


def _marks(history: TrainingHistory) -> list[Marks]:
    """Return the marks of all decisions."""
    marks = []
    for kind, (symbol, colour, label) in MARKS.items():
        events = [event for event in history.events if event["kind"] == kind]
        # A hold has the step of its rollback: place it below.
        height = 0.1 if kind in ("hold", "restore") else 0.3
        if events:
            points = [(int(event["step"]), height) for event in events]
            notes = [event_note(event) for event in events]
            marks.append(Marks(label, points, colour, symbol, notes))
    return marks


def _decision_lines(history: TrainingHistory) -> list[VerticalLine]:
    """Return a thin vertical line at each advance and rollback."""
    kinds = ("advance", "rollback") if history.rules.has_stages else ()
    return [
        VerticalLine(int(event["step"]), MARKS[event["kind"]][1])
        for event in history.events
        if event["kind"] in kinds
    ]


def _mix_areas(history: TrainingHistory) -> list[Area]:
    """Return the shares of the mix as stacked areas, in the colours of the difficulties."""
    held = [*history.mixes, (history.reached, history.mixes[-1][1])] if history.mixes else []
    held = downsample_rows(held)
    names = list(dict.fromkeys(name for _, mix in held for name in mix))
    return [
        Area(name, [(step, mix.get(name, 0.0)) for step, mix in held], colour_of(index), step=True)
        for index, name in enumerate(names)
    ]


def difficulty_lines(strata: Strata) -> list[Line]:
    """Return a line with dots for every measured difficulty."""
    names = list(dict.fromkeys(name for _, values in strata for name in values))
    return [
        Line(
            name,
            [(step, values[name]) for step, values in strata if name in values],
            colour_of(index),
            dots=True,
            notes=[
                f"step {step}: {values_note(values)}" for step, values in strata if name in values
            ],
        )
        for index, name in enumerate(names)
    ]


def _mix_lines(history: TrainingHistory) -> list[Line]:
    """Return the bold line of the current mix: one line per span, or one line without stages."""
    strata = history.strata
    if history.rules.has_stages:
        pieces = [performance(strata, s.mix, s.begin, s.end) for s in _spans(history)]
    else:
        # One line, since a mix may change at every step, and a span would then have only one point.
        pieces = [[]]
        begins = [step for step, _ in history.mixes]
        for step, values in strata:
            held = history.mixes[max(0, bisect_left(begins, step) - 1)][1]
            pieces[0] += performance([(step, values)], held, step, step)
    return [Line("current mix", piece, DARK, width=3.0) for piece in pieces if piece]


def performance(strata: Strata, mix: Mapping[str, float], begin: int, end: int) -> list[Point]:
    """Compute the performance of a mix at the steps where all of its difficulties were measured."""
    used = {name: share for name, share in mix.items() if share}
    return [
        (step, sum(share * values[name] for name, share in used.items()))
        for step, values in strata
        if used and begin <= step <= end and all(name in values for name in used)
    ]


def _thresholds(history: TrainingHistory) -> list[Item]:
    """Return the minimum, and the level that was required at each decision."""
    rules, items = history.rules, []
    if rules.rollback_threshold is not None:
        items += _decision_levels(history, rules.rollback_threshold)
    if rules.min_performance is not None:
        label = f"minimum to advance ({rules.min_performance:g})"
        ends = [(0, rules.min_performance), (history.max_steps, rules.min_performance)]
        items.append(Line(label, ends, "#444444", dotted=True))
    return items


def _decision_levels(history: TrainingHistory, threshold: float) -> list[Item]:
    lines: list[Item] = []
    rings: list[Point] = []
    notes: list[str] = []
    begin: int | None = None
    for event in history.events:
        kind, step = event["kind"], int(event["step"])
        if kind == "trial":
            begin = step
        if kind not in ("advance", "rollback") or event.get("perf_after") is None:
            continue
        # Along a trial, else around the attempt.
        aside = 0.012 * history.max_steps
        ends = (step - aside, step + aside) if begin is None else (begin, step)
        level = event["perf_before"] + threshold
        label = f"to beat: before {threshold:+g}"
        note = f"step {step}: after {event['perf_after']:.4f} had to beat {level:.4f}"
        lines.append(
            Line(
                label,
                [(x, level) for x in ends],
                THRESHOLD,
                width=2.2,
                dotted=True,
                notes=[note] * 2,
            )
        )
        rings.append((step, event["perf_after"]))
        notes.append(event_note(event))
        begin = None
    if rings:
        lines.append(Marks("next mix at a decision", rings, DARK, "ring", notes))
    return lines


def event_note(event: Event) -> str:
    """Return the hover text of an event: step, kind, reason, stages and performance."""
    kind, reason = event["kind"], event.get("reason")
    lines = [f"<b>step {event['step']}: {kind}</b>" + (f" ({escape(reason)})" if reason else "")]
    source, target = event.get("from_stage"), event.get("to_stage")
    stages = dict.fromkeys(escape(str(name)) for name in (source, target) if name)
    lines.append(f"stage {' → '.join(stages)}")
    if event.get("delta") is not None:
        before, after = event["perf_before"], event["perf_after"]
        lines.append(f"before {before:.4f}, after {after:.4f}, delta {event['delta']:+.4f}")
    if event.get("strata"):
        lines.append(values_note(event["strata"]))
    if event.get("rollback_count"):
        lines.append(f"rollbacks so far: {event['rollback_count']}")
    if kind == "rollback" and event.get("cooldown_until") is not None:
        lines.append(f"no attempt before step {event['cooldown_until']}")
    return "<br>".join(lines)


def values_note(values: Mapping[str, float]) -> str:
    """Return the values of the difficulties on one line."""
    return " · ".join(f"{escape(name)} {value:.3f}" for name, value in values.items())
