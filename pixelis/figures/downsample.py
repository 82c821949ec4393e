"""What of a very long course is drawn: as much as can be told apart, and every extreme of it.

A figure is a thousand pixels wide. Beyond a few thousand points a line looks no different, and
takes minutes to draw; what is left out stays in the run's metrics and in curriculum/events.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = tuple[int, Mapping[str, float]]
Event = TypeVar("Event", bound=Mapping[str, Any])

MOST_ROWS = 2000  # that are drawn as they are
NUM_SPANS = 250  # of steps that longer ones are cut into, each with its extremes
MOST_EVENTS = 400
NUM_PLACES = 100  # marks beside each other that can still be told apart


def thin_rows(rows: Sequence[Row], *, keep: Iterable[int] = ()) -> list[Row]:
    """Of many measurements, those that a line would look different without.

    In each of 250 spans of steps: the first, the last, and for every name its least and greatest.

    Args:
        rows: values by name, in the order of steps; up to 2,000 stay as they are.
        keep: steps whose rows stay in any case.
    """
    if len(rows) <= MOST_ROWS:
        return list(rows)
    spans: dict[int, list[int]] = {}
    for index, (step, _) in enumerate(rows):
        spans.setdefault(_place(step, rows[0][0], rows[-1][0], NUM_SPANS), []).append(index)
    wanted, chosen = set(keep), {0, len(rows) - 1}
    chosen |= {index for index, (step, _) in enumerate(rows) if step in wanted}
    for inside in spans.values():
        chosen |= {inside[0], inside[-1]}
        for name in {name for index in inside for name in rows[index][1]}:
            having = [index for index in inside if name in rows[index][1]]
            values = {index: rows[index][1][name] for index in having}
            chosen |= {min(having, key=values.__getitem__), max(having, key=values.__getitem__)}
    return [rows[index] for index in sorted(chosen)]


def thin_points(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """`thin_rows` of one series."""
    return [(step, row[""]) for step, row in thin_rows([(step, {"": v}) for step, v in points])]


def thin_events(events: Sequence[Event]) -> list[Event]:
    """Of many events, those that can be told apart; the stages' course stays what it was.

    A trial stays with what it led to. Every change of stage, `restore`, start and end stays, and of
    each other kind the first and the last, and the first in each hundredth of the training.

    Args:
        events: in order, with `step`, `kind`, `from_stage` and `to_stage`; up to 400 stay.
    """
    if len(events) <= MOST_EVENTS:
        return list(events)
    units = _units(events)
    first, last = int(events[0]["step"]), int(events[-1]["step"])
    shown: dict[tuple[str, int], int] = {}
    for index, unit in enumerate(units):
        key = str(unit[-1]["kind"]), _place(int(unit[0]["step"]), first, last, NUM_PLACES)
        shown.setdefault(key, index)
    newest = {str(unit[-1]["kind"]): index for index, unit in enumerate(units)}
    chosen = {*shown.values(), *newest.values()}
    chosen |= {index for index, unit in enumerate(units) if any(map(_matters, unit))}
    return [event for index in sorted(chosen) for event in units[index]]


def _matters(event: Mapping[str, Any]) -> bool:
    moved = event["kind"] == "advance" and event.get("from_stage") != event.get("to_stage")
    return moved or event["kind"] in ("start", "restore", "end")


def _units(events: Sequence[Event]) -> list[list[Event]]:
    """The events, a trial together with all up to its decision."""
    units: list[list[Event]] = []
    is_open = False
    for event in events:
        if is_open:
            units[-1].append(event)
        else:
            units.append([event])
        is_open = event["kind"] == "trial" or (is_open and event["kind"] == "restore")
    return units


def _place(step: int, first: int, last: int, number: int) -> int:
    return min(number - 1, (step - first) * number // max(1, last - first))
