"""The events of a curriculum: the rows of `curriculum/events.json`."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pixelis.curriculum.performance import compute_delta_standard_error
from pixelis.curriculum.strategies.base import Decision
from pixelis.errors import ConfigError


@dataclass(frozen=True)
class CurriculumEvent:
    """An event after an optimiser step, with its reason and the numbers of the decision.

    `kind` is start, trial, advance, rollback, hold or end. `from_stage` is the stage before the
    event, `to_stage` the stage whose mix is used after it: the next one for `trial` and `advance`,
    the same one for every other kind. `mix`, `interval`, `cooldown_until` and `rollback_count` are
    the values after the event.
    """

    step: int
    kind: str
    reason: str | None
    from_stage: str
    to_stage: str
    mix: dict[str, float]
    perf_before: float | None
    perf_after: float | None
    delta: float | None
    delta_standard_error: float | None
    average: float | None
    strata: dict[str, float] | None
    strata_counts: dict[str, int] | None
    interval: int
    cooldown_until: int
    rollback_count: int
    examples_seen: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON, fields in their order."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: object) -> "CurriculumEvent":
        """Build an event from the result of `to_dict`."""
        names = [item.name for item in dataclasses.fields(cls)]
        if not isinstance(record, Mapping) or set(record) != set(names):
            raise ConfigError(f"A curriculum event must have the fields {names}, got {record!r}")
        return cls(**copy.deepcopy(dict(record)))


def compute_numbers(
    decision: Decision | None,
    strata: Mapping[str, float] | None,
    counts: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Compute the measured fields of an event, all null without a measurement."""
    perf_before = decision.perf_before if decision else None
    perf_after = decision.perf_after if decision else None
    delta = None if perf_before is None or perf_after is None else perf_after - perf_before
    if perf_after is None:
        strata, counts = None, None
    error = None
    if decision and delta is not None and strata and counts:
        error = compute_delta_standard_error(decision.old_mix, decision.new_mix, strata, counts)
    return {
        "perf_before": _number(perf_before),
        "perf_after": _number(perf_after),
        "delta": _number(delta),
        "delta_standard_error": error,
        "average": _number(decision.average if decision else None),
        "strata": None if strata is None else dict(strata),
        "strata_counts": None if counts is None else dict(counts),
    }


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
