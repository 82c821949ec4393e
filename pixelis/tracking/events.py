"""Curriculum events on the way to MLflow: their numbers, and the stage visits that they tell of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.curriculum.visits import visits
from pixelis.tracking.delivery import Record
from pixelis.tracking.visits import VISIT_TAG, visit_fields

EVENT_SIGNS = {"advance": 1.0, "rollback": -1.0}
EVENT_METRICS = {
    "performance_before": "perf_before",
    "performance_after": "perf_after",
    "performance_drop": "delta",
    "average_performance": "average",
    "rollback_count": "rollback_count",
    "interval": "interval",
}

Event = Mapping[str, Any]


def event_metrics(event: Event) -> dict[str, float]:
    """The numbers of an event, `curriculum/*`, without those that it does not have."""
    values = {name: event.get(field) for name, field in EVENT_METRICS.items()}
    values["event"] = EVENT_SIGNS.get(event["kind"])
    values |= {f"mix/{name}": share for name, share in (event.get("mix") or {}).items()}
    return {f"curriculum/{key}": value for key, value in values.items() if value is not None}


class VisitLog:
    """Which stage visits were told, and how: each is told when it begins and when it ends."""

    def __init__(self) -> None:
        """Begin with none told."""
        self._told: dict[int, dict[str, Any]] = {}

    def changed(self, events: Sequence[Event], now: int, status: str) -> Iterator[Record]:
        """Records of the visits that began or ended since.

        Args:
            events: all so far.
            now: milliseconds since 1970.
            status: of a visit that is open.
        """
        for visit in visits(events):
            fields = visit_fields(visit, status if visit.end is None else "FINISHED")
            if fields != self._told.get(visit.index):
                self._told[visit.index] = fields
                yield Record("visit", fields["tags"][VISIT_TAG], fields, timestamp=now)
