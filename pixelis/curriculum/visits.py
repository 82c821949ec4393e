"""The visits of a training: spans of steps with one stage's mix, read from the events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Event = Mapping[str, Any]

OPEN, TRIED_NEXT, ADVANCED, ROLLED_BACK, ENDED = OUTCOMES = (
    "open",
    "tried_next",
    "advanced",
    "rolled_back",
    "ended",
)


@dataclass(frozen=True)
class Visit:
    """One span; the next one begins where it ends.

    A rolled-back trial is a visit of the next stage; a kept trial is the beginning of that stage's
    visit. After a rollback the old stage has another visit.

    Attributes:
        index: the number of the visit, from 1.
        stage: the stage's name; for a strategy without stages, the strategy's name.
        begin: the step after which the mix was used.
        end: the last step with the mix; None while the visit is open.
        mix: difficulty -> fraction.
        entered_by: the event's kind: start, trial, advance or rollback.
        outcome: how it was left: `open`: not yet; `tried_next`: a trial of the next stage began;
            `advanced`: the next stage began; `rolled_back`: it was a trial, and is undone;
            `ended`: training ended.
        reason: the reason of the event that ended the visit.
        strata_at_entry, strata_at_exit: performance by difficulty; None if not measured.
        delta: the delta of the decision that ended or kept a trial's visit.
    """

    index: int
    stage: str
    begin: int
    end: int | None
    mix: Mapping[str, float]
    entered_by: str
    outcome: str = OPEN
    reason: str | None = None
    strata_at_entry: Mapping[str, float] | None = None
    strata_at_exit: Mapping[str, float] | None = None
    delta: float | None = None


def visits(events: Sequence[Event]) -> list[Visit]:
    """Return the visits of a training in order; the last one is open until the training ended.

    Args:
        events: the results of `CurriculumEvent.to_dict`.
    """
    spans: list[Visit] = []
    for event in events:
        if not spans:
            spans.append(_enter(1, event))
            continue
        kind, current = event["kind"], spans[-1]
        is_tried = current.entered_by == "trial" and current.delta is None
        outcome = None
        if kind == "end":
            outcome = ENDED
        elif kind == "trial":
            outcome = TRIED_NEXT
        elif kind == "advance" and not is_tried and event.get("to_stage") != current.stage:
            outcome = ADVANCED
        elif kind == "rollback" and is_tried:
            outcome = ROLLED_BACK
        if is_tried and kind in ("advance", "rollback"):
            current = spans[-1] = replace(current, delta=event.get("delta"))
        if outcome is not None:
            spans[-1] = _leave(current, event, outcome)
        if outcome in (TRIED_NEXT, ADVANCED, ROLLED_BACK):
            spans.append(_enter(current.index + 1, event))
    return spans


def _enter(index: int, event: Event) -> Visit:
    return Visit(
        index=index,
        stage=event.get("to_stage") or "",
        begin=event["step"],
        end=None,
        mix=event.get("mix") or {},
        entered_by=event["kind"],
        strata_at_entry=event.get("strata"),
    )


def _leave(visit: Visit, event: Event, outcome: str) -> Visit:
    return replace(
        visit,
        end=event["step"],
        outcome=outcome,
        reason=event.get("reason"),
        strata_at_exit=event.get("strata"),
    )
