"""The spans of steps that a training spent under one stage's mix, read from its events."""

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

    A trial that is rolled back is a visit of the stage that was tried; one that is kept is the
    beginning of that stage's visit. After a rollback the old stage is visited again.

    Attributes:
        index: from 1, in order.
        stage: whose mix held; the strategy's name where it has no stages.
        begin: the step after which the mix held.
        end: the step after which it did no longer; None while the visit is open.
        mix: difficulty -> fraction.
        entered_by: the event's kind: start, trial, advance or rollback.
        outcome: how it was left: `open`: not yet; `tried_next`: a trial of the next stage began;
            `advanced`: the next stage began; `rolled_back`: it was a trial, and is undone;
            `ended`: training ended.
        reason: of the event that it was left by.
        strata_at_entry, strata_at_exit: performance by difficulty then; None where not measured.
        delta: of the decision that a trial's visit ended with or was kept by.
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
    """The visits of a training, in order; the last one is open until the training ended.

    Args:
        events: as `CurriculumEvent.to_dict` gives them.
    """
    found: list[Visit] = []
    for event in events:
        kind = event["kind"]
        here = found[-1] if found else None
        on_trial = here is not None and here.entered_by == "trial" and here.delta is None
        if here is None:
            found.append(_begin(1, event))
        elif kind == "end":
            found[-1] = _left(here, event, ENDED)
        elif kind == "trial":
            found[-1] = _left(here, event, TRIED_NEXT)
            found.append(_begin(here.index + 1, event))
        elif kind == "advance" and on_trial:
            found[-1] = replace(here, delta=event.get("delta"))
        elif kind == "advance" and event.get("to_stage") != here.stage:
            found[-1] = _left(here, event, ADVANCED)
            found.append(_begin(here.index + 1, event))
        elif kind == "rollback" and on_trial:
            left = _left(here, event, ROLLED_BACK)
            found[-1] = replace(left, delta=event.get("delta"))
            found.append(_begin(here.index + 1, event))
    return found


def _begin(index: int, event: Event) -> Visit:
    return Visit(
        index=index,
        stage=event.get("to_stage") or "",
        begin=event["step"],
        end=None,
        mix=event.get("mix") or {},
        entered_by=event["kind"],
        strata_at_entry=event.get("strata"),
    )


def _left(visit: Visit, event: Event, outcome: str) -> Visit:
    return replace(
        visit,
        end=event["step"],
        outcome=outcome,
        reason=event.get("reason"),
        strata_at_exit=event.get("strata"),
    )
