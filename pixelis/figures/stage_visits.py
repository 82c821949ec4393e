"""The spans that a training spent in a stage, read from its events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Event = Mapping[str, Any]


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
