"""Figures of a curriculum: the timeline, examples drawn and validation loss by difficulty.

The timeline has stages as bands, events as marks, performance as lines, and dotted thresholds.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from html import escape

from pixelis.figures.chart import (
    BANDS,
    DARK,
    GREY,
    SIZE,
    Chart,
    Item,
    Panel,
    Point,
    area,
    band,
    colour_of,
    line,
    marks,
    stack_panels,
    vertical_line,
)
from pixelis.figures.history import (
    Event,
    StageSpan,
    Strata,
    TrainingHistory,
    downsample_rows,
    stage_spans,
)

TRIAL = ("trial of the next mix", "#74889c")
MARKS = {  # event kind -> symbol, colour, label
    "advance": ("triangle-up", "#009E73", "advance"),
    "rollback": ("triangle-down", "#B2182B", "rollback"),
    "trial": ("triangle-right", "#56B4E9", "trial begins"),
    "extend": ("triangle-right", "#E69F00", "trial extended"),
    "hold": ("square", "#7f7f7f", "hold"),
}
THRESHOLD = "#B2182B"
HEIGHT_EACH = 290  # pixels of one training in a comparison


def timeline(history: TrainingHistory) -> Chart:
    """Chart a curriculum, with the training loss below it if there is any."""
    stages = stage_names([history])
    panels = _timeline_panels(history, stages)
    if history.training_loss:
        loss = line("training loss", history.training_loss, GREY, width=1.0)
        items = [*_stage_bands(history, stages), loss]
        panels.append(Panel(items, label="training loss<br>(nats per token)", height=1.3))
    return stack_panels(panels, history.max_steps)


def compare_timelines(histories: Mapping[str, TrainingHistory]) -> Chart:
    """Chart several trainings, by name, above each other, in the same colours."""
    stages = stage_names(list(histories.values()))
    panels: list[Panel] = []
    for name, history in histories.items():
        panels += _timeline_panels(history, stages, title=name)
    last = max(history.max_steps for history in histories.values())
    return stack_panels(panels, last, size=(SIZE[0], 60 + HEIGHT_EACH * len(histories)))


def loss_by_difficulty(history: TrainingHistory) -> Chart:
    """Chart the validation loss of each difficulty over the bands of the stages."""
    bands = _stage_bands(history, stage_names([history]))
    items = [*bands, *_difficulty_lines(history.losses)]
    panel = Panel(items, label="validation loss (nats per token)", low=0)
    return stack_panels([panel], history.max_steps)


def samples_drawn(history: TrainingHistory) -> Chart:
    """Chart how many examples of each difficulty were drawn up to each step; mark advances."""
    items = _areas(downsample_rows(count_drawn(history)))
    if history.rules.has_stages:
        items += [
            vertical_line(int(event["step"]), "#222222", str(event["to_stage"]))
            for event in history.events
            if event["kind"] == "advance"
        ]
    panel = Panel(items, label="examples drawn so far (number)", low=0)
    return stack_panels([panel], history.max_steps)


def count_drawn(history: TrainingHistory) -> Strata:
    """Compute the cumulative counts at every change of the mix and at the end.

    The sampler keeps to the fractions of a mix within one example, so the mixes give the counts.
    """
    if not history.mixes:
        return []
    totals: dict[str, float] = {name: 0.0 for _, mix in history.mixes for name in mix}
    counts: list[tuple[int, Mapping[str, float]]] = []
    ends = [step for step, _ in history.mixes[1:]] + [history.reached]
    for (step, mix), end in zip(history.mixes, ends, strict=True):
        counts.append((step, dict(totals)))
        for name, share in mix.items():
            totals[name] += share * (end - step) * history.rules.examples_per_step
    return [*counts, (history.reached, totals)]


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


def _timeline_panels(
    history: TrainingHistory, stages: Sequence[str], title: str = ""
) -> list[Panel]:
    """Return a lane with stages (or the mix) and events, and a panel with performance below it."""
    rules, bands = history.rules, _stage_bands(history, stages)
    if len(history.events) < history.num_events:
        shown = f"{len(history.events):,} of {history.num_events:,} events"
        title = f"{title}: {shown}" if title else f"{shown}; all: curriculum/events.json"
    if rules.has_stages:
        items = [*_stage_bands(history, stages, with_names=True), *_event_marks(history)]
        lane = Panel(items, height=0.6, low=0, high=1, ticks=(), title=title)
    else:
        held = [*history.mixes, (history.reached, history.mixes[-1][1])] if history.mixes else []
        shares = _areas(downsample_rows(held), step=True)
        lane = Panel(shares, "mix", height=1.2, low=0, high=1, ticks=(0, 1), title=title)
    items = [*bands, *_decision_lines(history), *_difficulty_lines(history.strata)]
    items += [*_mix_lines(history), *_thresholds(history)]
    label = f"{rules.metric.replace('_', ' ')} (0 to 1)"
    return [lane, Panel(items, label=label, low=-0.02, high=1.02)]


def _spans(history: TrainingHistory) -> list[StageSpan]:
    return stage_spans(history.events, history.reached) if history.rules.has_stages else []


def _stage_bands(
    history: TrainingHistory, stages: Sequence[str], *, with_names: bool = False
) -> list[Item]:
    """Return a band for each span in the colour of its stage, and a darker one over trials.

    A name is written where its span is wide enough; the legend has all names.
    """
    bands = []
    for span in _spans(history):
        is_wide = len(span.stage) * 0.013 * history.max_steps < span.end - span.begin
        text = span.stage if with_names and is_wide and not span.trial else ""
        colour = BANDS[stages.index(span.stage) % len(BANDS)]
        bands.append(band(f"stage {span.stage}", span.begin, span.end, colour, text=text))
    trials = [span for span in _spans(history) if span.trial]
    return bands + [band(TRIAL[0], s.begin, s.end, TRIAL[1], opacity=0.5) for s in trials]


def _event_marks(history: TrainingHistory) -> list[Item]:
    items = []
    for kind, (symbol, colour, label) in MARKS.items():
        events = [event for event in history.events if event["kind"] == kind]
        height = 0.1 if kind == "hold" else 0.3  # a hold has the step of its rollback
        if events:
            points = [(int(event["step"]), height) for event in events]
            items.append(marks(label, points, colour, symbol, [event_note(e) for e in events]))
    return items


def _decision_lines(history: TrainingHistory) -> list[Item]:
    """Return a thin vertical line at each advance and rollback."""
    kinds = ("advance", "rollback") if history.rules.has_stages else ()
    return [
        vertical_line(int(event["step"]), MARKS[event["kind"]][1])
        for event in history.events
        if event["kind"] in kinds
    ]


def _areas(rows: Strata, *, step: bool = False) -> list[Item]:
    """Return the values of each difficulty as stacked areas."""
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    return [
        area(name, [(x, values.get(name, 0.0)) for x, values in rows], colour_of(index), step=step)
        for index, name in enumerate(names)
    ]


def _difficulty_lines(strata: Strata) -> list[Item]:
    """Return a line with dots for every measured difficulty."""
    items = []
    names = list(dict.fromkeys(name for _, values in strata for name in values))
    for index, name in enumerate(names):
        measured = [(step, values) for step, values in strata if name in values]
        points = [(step, values[name]) for step, values in measured]
        notes = [f"step {step}: {_values_note(values)}" for step, values in measured]
        items.append(line(name, points, colour_of(index), dots=True, notes=notes))
    return items


def _mix_lines(history: TrainingHistory) -> list[Item]:
    """Return the bold line of the current mix: one line per span, or one line without stages."""
    strata = history.strata
    if history.rules.has_stages:
        pieces = [_performance(strata, s.mix, s.begin, s.end) for s in _spans(history)]
    else:
        # One line, since a mix may change at every step, and a span would then have only one point.
        pieces = [[]]
        begins = [step for step, _ in history.mixes]
        for step, values in strata:
            held = history.mixes[max(0, bisect_left(begins, step) - 1)][1]
            pieces[0] += _performance([(step, values)], held, step, step)
    return [line("current mix", piece, DARK, width=3.0) for piece in pieces if piece]


def _performance(strata: Strata, mix: Mapping[str, float], begin: int, end: int) -> list[Point]:
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
        items.append(line(label, ends, "#444444", dotted=True))
    return items


def _decision_levels(history: TrainingHistory, threshold: float) -> list[Item]:
    items: list[Item] = []
    rings: list[Point] = []
    notes: list[str] = []
    begin: int | None = None
    label = f"to beat: before {threshold:+g}"
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
        note = f"step {step}: after {event['perf_after']:.4f} had to beat {level:.4f}"
        points = [(x, level) for x in ends]
        items.append(line(label, points, THRESHOLD, width=2.2, dotted=True, notes=[note] * 2))
        rings.append((step, event["perf_after"]))
        notes.append(event_note(event))
        begin = None
    if rings:
        items.append(marks("next mix at a decision", rings, DARK, "circle-open", notes))
    return items


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
    if event.get("progress") is not None:
        lines.append(_change_note(event, "progress") + ", " + _change_note(event, "forgetting"))
    if event.get("strata"):
        lines.append(_values_note(event["strata"]))
    if event.get("rollback_count"):
        lines.append(f"rollbacks so far: {event['rollback_count']}")
    if kind == "rollback" and event.get("cooldown_until") is not None:
        lines.append(f"no attempt before step {event['cooldown_until']}")
    return "<br>".join(lines)


def _change_note(event: Event, name: str) -> str:
    """Return `progress` or `forgetting` of a trial, with its standard error if there is one."""
    error = event.get(f"{name}_standard_error")
    return f"{name} {event[name]:+.4f}" + ("" if error is None else f" ± {error:.4f}")


def _values_note(values: Mapping[str, float]) -> str:
    return " · ".join(f"{escape(name)} {value:.3f}" for name, value in values.items())
