"""The order of the examples: the exact mix, and every example once per pass."""

import copy
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm
from random import Random
from typing import Any

from pixelis.curriculum.performance import as_fraction
from pixelis.errors import ConfigError

CREDIT_UNIT = 10**9  # credits are integers in billionths, which JSON keeps exactly


class MixtureSampler:
    """A source of (difficulty, index) pairs whose order depends only on seed and state.

    Each pass over a difficulty has its own shuffle, made from the seed, the difficulty and the
    number of the pass. So no random generator's state must be saved, and a copy can run ahead.
    """

    def __init__(self, sizes: Mapping[str, int], mix: Mapping[str, float], seed: int = 0) -> None:
        """Begin the first visit; `sizes` is the number of examples of each difficulty."""
        self._sizes, self._seed = dict(sizes), seed
        self._pools: dict[str, list[int] | None] = dict.fromkeys(self._sizes)
        self._passes = dict.fromkeys(self._sizes, 0)
        self._positions = dict.fromkeys(self._sizes, 0)
        # Shuffled when first drawn from: a pool may change many times between two draws.
        self._orders: dict[str, list[int]] = {}
        self._mix = self._check_mix(mix)
        self._quota = Quota(self._mix)

    @property
    def mix(self) -> dict[str, float]:
        """The mix that is drawn from."""
        return dict(self._mix)

    def set_mix(self, mix: Mapping[str, float], new_visit: bool = True) -> None:
        """Draw from a new mix, from the next draw on.

        A new visit starts a new quota. Without a new visit, each difficulty keeps its credit: else
        a mix that changes at every step would never draw its rarest difficulty.

        Raises:
            ConfigError: when the mix takes from a difficulty without examples.
        """
        checked = self._check_mix(mix)
        if new_visit:
            self._quota = Quota(checked)
        elif checked != self._mix:
            self._quota = Quota(checked, credits=self._quota.compute_owed())
        self._mix = checked

    def set_pool(self, pool: Mapping[str, Sequence[int]] | None) -> None:
        """Draw only from these indices; a difficulty that is not named has all of its examples.

        A pass is over the current pool: a new pool of a difficulty begins a new pass.
        """
        for difficulty, size in self._sizes.items():
            given = (pool or {}).get(difficulty)
            indices = None if given is None or len(given) == size else sorted(given)
            if indices != self._pools[difficulty]:
                self._pools[difficulty] = indices
                self._begin_pass(difficulty)

    def draw(self, num_examples: int) -> list[tuple[str, int]]:
        """Return the next examples as (difficulty, index within that difficulty).

        Raises:
            ValueError: when the mix takes from a difficulty whose pool is empty.
        """
        for difficulty, fraction in self._mix.items():
            if fraction > 0 and self._pools[difficulty] == []:
                raise ValueError(f"the mix takes {fraction:g} from the empty pool '{difficulty}'")
        return [self._draw_one() for _ in range(num_examples)]

    def _draw_one(self) -> tuple[str, int]:
        difficulty = self._quota.next()
        order = self._orders.get(difficulty) or self._shuffle(difficulty)
        position = self._positions[difficulty]
        if position == len(order):
            self._begin_pass(difficulty)
            order, position = self._shuffle(difficulty), 0
        self._positions[difficulty] = position + 1
        return difficulty, order[position]

    def _begin_pass(self, difficulty: str) -> None:
        self._passes[difficulty] += 1
        self._positions[difficulty] = 0
        self._orders.pop(difficulty, None)

    def _shuffle(self, difficulty: str) -> list[int]:
        pool = self._pools[difficulty]
        order = list(range(self._sizes[difficulty])) if pool is None else list(pool)
        # A text seeds Random through SHA-512: the same on every machine and in every process.
        Random(f"{self._seed}/{difficulty}/{self._passes[difficulty]}").shuffle(order)
        self._orders[difficulty] = order
        return order

    def copy(self) -> "MixtureSampler":
        """Return an independent sampler that will draw the same examples."""
        return copy.deepcopy(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state as plain JSON."""
        return copy.deepcopy(
            {
                "seed": self._seed,
                "sizes": self._sizes,
                "mix": self._mix,
                "counts": self._quota.counts,
                "credits": self._quota.credits,
                "passes": self._passes,
                "positions": self._positions,
                "pools": self._pools,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; the next draw is exactly the one that would have come next.

        Raises:
            ConfigError: when the state is of other training examples.
        """
        state = copy.deepcopy(dict(state))
        if state["sizes"] != self._sizes:
            raise ConfigError(
                f"sampler state: sizes must be those of the training examples, {self._sizes}, "
                f"got {state['sizes']}"
            )
        self._seed, self._mix = state["seed"], self._check_mix(state["mix"])
        self._quota = Quota(self._mix, state["counts"], state["credits"])
        self._passes, self._positions = state["passes"], state["positions"]
        self._pools, self._orders = state["pools"], {}

    def _check_mix(self, mix: Mapping[str, float]) -> dict[str, float]:
        for difficulty, fraction in mix.items():
            if fraction > 0 and self._sizes.get(difficulty, 0) < 1:
                raise ConfigError(
                    f"mix: the fraction of '{difficulty}', which has no training examples, must "
                    f"be 0, got {fraction}"
                )
        # Ties between difficulties are broken by the order of the sizes, not by that of the mix.
        return {name: float(mix[name]) for name in (*self._sizes, *mix) if name in mix}


class Quota:
    """The difficulty of each draw of one visit, by the chairman rule, which follows a mix exactly.

    Tijdeman (1980), "The chairman assignment problem": with fractions f_d there is always an order
    in which after n draws every count_d differs from f_d * n by less than 1. Draw number c + 1 of a
    difficulty may not come before f_d * n > c (its release) nor later than f_d * n >= c + 1 (its
    deadline); choosing, among the released draws, the earliest deadline satisfies both (for unit
    jobs this schedule works whenever any does). All arithmetic is on integers, so no draw depends
    on rounding.
    """

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
        owed = {}
        for name, part, count in zip(self._names, self._parts, self._counts, strict=True):
            due = round(Fraction(self._drawn * part, self._scale) * CREDIT_UNIT)
            owed[name] = due + self.credits[name] - count * CREDIT_UNIT
        return owed


def draw_scored(
    sizes: Mapping[str, int], pool_size: int | None, *, seed: int, step: int
) -> list[tuple[str, int]]:
    """Draw the examples whose losses are measured after a step, as (difficulty, index) pairs.

    Each scored example costs a forward pass. A new, limited pool each time keeps scoring cheaper
    than training. Each difficulty gives its share of the pool, and at least one example. The draw
    is a function of its arguments alone, so that a resumed training repeats it.

    Args:
        sizes: training examples by difficulty.
        pool_size: the largest number of scored examples; None: all.
        seed: the training's seed.
        step: the last optimiser step.
    """
    total = sum(sizes.values())
    drawn: list[tuple[str, int]] = []
    for difficulty, size in sizes.items():
        indices = list(range(size))
        if size > 0 and pool_size is not None and pool_size < total:
            share = max(1, pool_size * size // total)
            indices = sorted(Random(f"scored:{seed}:{difficulty}:{step}").sample(indices, share))
        drawn += [(difficulty, index) for index in indices]
    return drawn
