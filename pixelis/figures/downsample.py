"""Reduce a very long training history to what a figure of a thousand pixels can show.

Every extreme is kept. More than a few thousand points take minutes to draw and make no visible
difference; all points are still in the run's metrics and in curriculum/events.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = tuple[int, Mapping[str, float]]
Event = TypeVar("Event", bound=Mapping[str, Any])

MAX_ROWS = 2000  # up to this number, every point is drawn
NUM_BUCKETS = 250  # of steps; each keeps its extremes
MAX_EVENTS = 400
NUM_EVENT_BUCKETS = 100


def downsample_rows(rows: Sequence[Row], *, keep: Iterable[int] = ()) -> list[Row]:
    """Keep the first and last row of each of 250 buckets of steps, and the extremes of each name.

    Args:
        rows: values by name, in the order of steps; up to 2,000 are returned unchanged.
        keep: steps whose rows are always kept.
    """
    if len(rows) <= MAX_ROWS:
        return list(rows)
    buckets: dict[int, list[int]] = {}
    for index, (step, _) in enumerate(rows):
        buckets.setdefault(_bucket(step, rows[0][0], rows[-1][0], NUM_BUCKETS), []).append(index)
    kept_steps, chosen = set(keep), {0, len(rows) - 1}
    chosen |= {index for index, (step, _) in enumerate(rows) if step in kept_steps}
    for bucket in buckets.values():
        chosen |= {bucket[0], bucket[-1]}
        for name in {name for index in bucket for name in rows[index][1]}:
            values = {index: rows[index][1][name] for index in bucket if name in rows[index][1]}
            chosen |= {min(values, key=values.__getitem__), max(values, key=values.__getitem__)}
    return [rows[index] for index in sorted(chosen)]


def downsample_points(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Apply `downsample_rows` to one series."""
    rows = downsample_rows([(step, {"": value}) for step, value in points])
    return [(step, row[""]) for step, row in rows]


def downsample_events(events: Sequence[Event]) -> list[Event]:
    """Keep the events that a figure can distinguish; the sequence of stages is unchanged.

    A trial stays together with its decision. Every change of stage, `restore`, start and end is
    kept, and of each other kind the last, and the first in each hundredth of the training.

    Args:
        events: in order, with `step`, `kind`, `from_stage` and `to_stage`; up to 400 are returned
            unchanged.
    """
    if len(events) <= MAX_EVENTS:
        return list(events)
    groups = _group_trials(events)
    first, last = int(events[0]["step"]), int(events[-1]["step"])
    first_in_bucket: dict[tuple[str, int], int] = {}
    last_of_kind: dict[str, int] = {}
    for index, group in enumerate(groups):
        kind = str(group[-1]["kind"])
        bucket = _bucket(int(group[0]["step"]), first, last, NUM_EVENT_BUCKETS)
        first_in_bucket.setdefault((kind, bucket), index)
        last_of_kind[kind] = index
    chosen = {*first_in_bucket.values(), *last_of_kind.values()}
    chosen |= {index for index, group in enumerate(groups) if any(map(_is_essential, group))}
    return [event for index in sorted(chosen) for event in groups[index]]


def _is_essential(event: Mapping[str, Any]) -> bool:
    moved = event["kind"] == "advance" and event.get("from_stage") != event.get("to_stage")
    return moved or event["kind"] in ("start", "restore", "end")


def _group_trials(events: Sequence[Event]) -> list[list[Event]]:
    """Return each event as a group, but a trial with everything up to its decision as one."""
    groups: list[list[Event]] = []
    in_trial = False
    for event in events:
        if in_trial:
            groups[-1].append(event)
        else:
            groups.append([event])
        in_trial = event["kind"] == "trial" or (in_trial and event["kind"] == "restore")
    return groups


def _bucket(step: int, first: int, last: int, number: int) -> int:
    return min(number - 1, (step - first) * number // max(1, last - first))
