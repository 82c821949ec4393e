"""The difficulty of each draw by the chairman rule, which follows a mix exactly.

Tijdeman (1980), "The chairman assignment problem": with fractions f_d there is always an order in
which after n draws every count_d differs from f_d * n by less than 1. Draw number c + 1 of a
difficulty may not come before f_d * n > c (its release) nor later than f_d * n >= c + 1 (its
deadline); choosing, among the released draws, the earliest deadline satisfies both (for unit jobs
this schedule works whenever any does).
"""

from collections.abc import Mapping
from fractions import Fraction
from math import lcm

from pixelis.curriculum.performance import as_fraction

CREDIT_UNIT = 10**9  # credits are integers in billionths, which JSON keeps exactly


class Quota:
    """The draws of one visit; all arithmetic is on integers, so no draw depends on rounding."""

    def __init__(
        self,
        mix: Mapping[str, float],
        counts: Mapping[str, int] | None = None,
        credits: Mapping[str, int] | None = None,
    ) -> None:
        """Begin without draws and credits, or continue with those of an earlier quota."""
        parts = {name: as_fraction(part) for name, part in mix.items() if part > 0}
        total = sum(parts.values(), Fraction(0))
        self._names = list(parts)
        self._scale = lcm(*((part / total).denominator for part in parts.values()))
        self._parts = [int(part / total * self._scale) for part in parts.values()]
        self._counts = [(counts or {}).get(name, 0) for name in parts]
        self._credits = [(credits or {}).get(name, 0) for name in parts]
        self._drawn = sum(self._counts)
        self._releases = [0] * len(parts)
        self._deadlines = [0] * len(parts)
        for index in range(len(parts)):
            self._plan(index)

    def next(self) -> str:
        """Return the difficulty of the next draw, and count it."""
        self._drawn += 1
        drawn, deadlines = self._drawn, self._deadlines
        best = -1
        for index, release in enumerate(self._releases):
            if release <= drawn and (best < 0 or deadlines[index] < deadlines[best]):
                best = index
        if best < 0:  # only after a credit was carried from a difficulty that left the mix
            best = deadlines.index(min(deadlines))
        self._counts[best] += 1
        self._plan(best)
        return self._names[best]

    def _plan(self, index: int) -> None:
        """Compute the first and the last draw at which the next one of a difficulty may come."""
        step = self._parts[index] * CREDIT_UNIT
        owed = self._counts[index] * CREDIT_UNIT - self._credits[index]
        self._releases[index] = owed * self._scale // step + 1
        self._deadlines[index] = -(-(owed + CREDIT_UNIT) * self._scale // step)

    @property
    def counts(self) -> dict[str, int]:
        """The draws of this visit, by difficulty."""
        return dict(zip(self._names, self._counts, strict=True))

    @property
    def credits(self) -> dict[str, int]:
        """The billionths of a draw that were owed at the beginning of the visit."""
        return dict(zip(self._names, self._credits, strict=True))

    def compute_owed(self) -> dict[str, int]:
        """Compute the billionths of a draw that each difficulty is owed now."""
        return {
            name: round(Fraction(self._drawn * part, self._scale) * CREDIT_UNIT)
            + credit
            - count * CREDIT_UNIT
            for name, part, count, credit in zip(
                self._names, self._parts, self._counts, self._credits, strict=True
            )
        }
