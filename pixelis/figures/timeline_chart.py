"""The timeline: stages as bands, events as marks, performance as lines, thresholds dotted."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from pixelis.figures.chart import (
    BANDS,
    DARK,
    GREY,
    Area,
    Band,
    Chart,
    Item,
    Line,
    Marks,
    Panel,
    Point,
    Rule,
    Words,
    colour_of,
)
from pixelis.figures.downsample import thin_rows
from pixelis.figures.event_notes import event_note, values_note
from pixelis.figures.history import Strata, TrainingHistory
from pixelis.figures.stage_visits import Visit, visits

HATCH = "#8fa6ba"
MARKS = {
    "advance": ("up", "#009E73", "advance"),
    "rollback": ("down", "#B2182B", "rollback"),
    "trial": ("right", "#56B4E9", "trial begins"),
    "hold": ("square", "#7f7f7f", "hold"),
    "restore": ("square", "#B2182B", "weights put back"),
}
TO_BEAT = "#B2182B"


def timeline(course: TrainingHistory) -> Chart:
    """How a curriculum went, with the training loss below where there is one."""
    panels = timeline_panels(course, stage_names([course]))
    if course.training_loss:
        items: list[Item] = [*stage_bands(course, stage_names([course]))]
        items.append(Line("training loss", course.training_loss, GREY, width=1.0))
        panels.append(Panel(items, label="training loss\n(nats per token)", height=1.3))
    return Chart(panels, course.max_steps)


def stage_names(courses: Sequence[TrainingHistory]) -> list[str]:
    """The stages of several trainings in the order in which they are first met."""
    return list(
        dict.fromkeys(
            str(event["to_stage"] or event["from_stage"])
            for course in courses
            for event in course.events
            if course.rules.has_stages and event["kind"] in ("start", "advance")
        )
    )


def timeline_panels(course: TrainingHistory, stages: Sequence[str], title: str = "") -> list[Panel]:
    """A lane with stages (or the mix) and events, and below it the lines of performance."""
    rules, bands = course.rules, stage_bands(course, stages)
    if len(course.events) < course.num_events:
        shown = f"{len(course.events):,} of {course.num_events:,} events"
        title = f"{title}: {shown}" if title else f"{shown}; all: curriculum/events.json"
    if rules.has_stages:
        items: list[Item] = [*bands, *_stage_words(course), *_marks(course)]
        lane = Panel(items, height=0.6, low=0, high=1, ticks=(), title=title)
    else:
        lane = Panel(
            _mix_areas(course), "mix", height=1.2, low=0, high=1, ticks=(0, 1), title=title
        )
    lines: list[Item] = [*bands, *_rules(course), *difficulty_lines(course.strata)]
    lines += _mix_lines(course)
    lines += _thresholds(course)
    label = f"{rules.metric.replace('_', ' ')} (0 to 1)"
    return [lane, Panel(lines, label=label, low=-0.02, high=1.02)]


def stage_bands(course: TrainingHistory, stages: Sequence[str]) -> list[Band]:
    """Every span in the colour of its stage, trials hatched; nothing without stages."""
    spans = _spans(course)
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


def _spans(course: TrainingHistory) -> list[Visit]:
    return visits(course.events, course.reached) if course.rules.has_stages else []


def _stage_words(course: TrainingHistory) -> list[Words]:
    """The names of the stages that are wider than their name: the legend has them all."""
    return [
        Words((span.begin + span.end) / 2, 0.74, span.stage)
        for span in _spans(course)
        if len(span.stage) * 0.013 * course.max_steps < span.end - span.begin and not span.trial
    ]


def _marks(course: TrainingHistory) -> list[Marks]:
    """Every decision on the lane."""
    found = []
    for kind, (symbol, colour, label) in MARKS.items():
        events = [event for event in course.events if event["kind"] == kind]
        # A hold comes at the step of a rollback: beside it, not over it.
        height = 0.1 if kind in ("hold", "restore") else 0.3
        if events:
            points = [(int(event["step"]), height) for event in events]
            notes = [event_note(event) for event in events]
            found.append(Marks(label, points, colour, symbol, notes))
    return found


def _rules(course: TrainingHistory) -> list[Rule]:
    """A thin line down through the performance at each advance and rollback."""
    kinds = ("advance", "rollback") if course.rules.has_stages else ()
    return [
        Rule(int(event["step"]), MARKS[event["kind"]][1])
        for event in course.events
        if event["kind"] in kinds
    ]


def _mix_areas(course: TrainingHistory) -> list[Area]:
    """The shares of the mix on top of each other, in the colours of the difficulties."""
    held = [*course.mixes, (course.reached, course.mixes[-1][1])] if course.mixes else []
    held = thin_rows(held)
    names = list(dict.fromkeys(name for _, mix in held for name in mix))
    return [
        Area(name, [(step, mix.get(name, 0.0)) for step, mix in held], colour_of(index), held=True)
        for index, name in enumerate(names)
    ]


def difficulty_lines(strata: Strata) -> list[Line]:
    """A line with dots for every difficulty that was measured."""
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


def _mix_lines(course: TrainingHistory) -> list[Line]:
    """The bold line of the current mix: a piece for each visit, one where the mix drifts."""
    strata = course.strata
    if course.rules.has_stages:
        pieces = [performance(strata, s.mix, s.begin, s.end) for s in _spans(course)]
    else:
        # One line: a mix may change at every step, and no piece of it would hold two points.
        pieces = [[]]
        begins = [step for step, _ in course.mixes]
        for step, values in strata:
            held = course.mixes[max(0, bisect_left(begins, step) - 1)][1]
            pieces[0] += performance([(step, values)], held, step, step)
    return [Line("current mix", piece, DARK, width=3.0) for piece in pieces if piece]


def performance(strata: Strata, mix: Mapping[str, float], begin: int, end: int) -> list[Point]:
    """The performance of a mix at the steps of a span where all that it uses was measured."""
    used = {name: share for name, share in mix.items() if share}
    return [
        (step, sum(share * values[name] for name, share in used.items()))
        for step, values in strata
        if used and begin <= step <= end and all(name in values for name in used)
    ]


def _thresholds(course: TrainingHistory) -> list[Item]:
    """What the rules ask for: the minimum, and at each decision the level that had to be beaten."""
    rules, items = course.rules, []
    if rules.rollback_threshold is not None:
        items += _levels_to_beat(course, rules.rollback_threshold)
    if rules.min_performance is not None:
        label = f"minimum to advance ({rules.min_performance:g})"
        ends = [(0, rules.min_performance), (course.max_steps, rules.min_performance)]
        items.append(Line(label, ends, "#444444", dotted=True))
    return items


def _levels_to_beat(course: TrainingHistory, threshold: float) -> list[Item]:
    lines: list[Item] = []
    rings: list[Point] = []
    notes: list[str] = []
    begin: int | None = None
    for event in course.events:
        kind, step = event["kind"], int(event["step"])
        if kind == "trial":
            begin = step
        if kind not in ("advance", "rollback") or event.get("perf_after") is None:
            continue
        # Along a trial, else around the attempt.
        aside = 0.012 * course.max_steps
        ends = (step - aside, step + aside) if begin is None else (begin, step)
        level = event["perf_before"] + threshold
        label = f"to beat: before {threshold:+g}"
        note = f"step {step}: after {event['perf_after']:.4f} had to beat {level:.4f}"
        lines.append(
            Line(
                label, [(x, level) for x in ends], TO_BEAT, width=2.2, dotted=True, notes=[note] * 2
            )
        )
        rings.append((step, event["perf_after"]))
        notes.append(event_note(event))
        begin = None
    if rings:
        lines.append(Marks("next mix at a decision", rings, DARK, "ring", notes))
    return lines
