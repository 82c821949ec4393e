"""The visits of a training: spans of steps with one stage's mix, read from the events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Event = Mapping[str, Any]

OPEN = "open"


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
        kind = event["kind"]
        if spans:
            last = spans[-1]
            is_tried = last.entered_by == "trial" and last.delta is None
            is_next = kind == "advance" and not is_tried and event.get("to_stage") != last.stage
            outcome = {
                "end": "ended",
                "trial": "tried_next",
                "advance": "advanced" if is_next else OPEN,
                "rollback": "rolled_back" if is_tried else OPEN,
            }.get(kind, OPEN)
            if is_tried and kind in ("advance", "rollback"):
                spans[-1] = replace(last, delta=event.get("delta"))
            if outcome == OPEN:
                continue
            spans[-1] = replace(
                spans[-1],
                end=event["step"],
                outcome=outcome,
                reason=event.get("reason"),
                strata_at_exit=event.get("strata"),
            )
            if outcome == "ended":
                continue
        spans.append(
            Visit(
                index=len(spans) + 1,
                stage=event.get("to_stage") or "",
                begin=event["step"],
                end=None,
                mix=event.get("mix") or {},
                entered_by=kind,
                strata_at_entry=event.get("strata"),
            )
        )
    return spans
