"""The order of the examples: the exact mix, and every example once per pass."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from pixelis.curriculum.checks import check_keys, check_mix, is_integer, require
from pixelis.curriculum.quota import Quota

STATE_KEYS = ("seed", "sizes", "mix", "counts", "credits", "passes", "positions", "pools")


class MixtureSampler:
    """A source of (difficulty, index) pairs whose order depends only on seed and state.

    Each pass over a difficulty has its own shuffle, made from the seed, the difficulty and the
    number of the pass. So no random generator's state must be saved, and a copy can run ahead.
    """

    def __init__(self, sizes: Mapping[str, int], mix: Mapping[str, float], seed: int = 0) -> None:
        """Begin the first visit; `sizes` is the number of examples of each difficulty."""
        is_mapping = isinstance(sizes, Mapping) and len(sizes) > 0
        require(is_mapping, "sizes", "a mapping of difficulty to number of examples", sizes)
        for difficulty, size in sizes.items():
            require(is_integer(size, 0), f"sizes.{difficulty}", "an integer >= 0", size)
        require(is_integer(seed, 0), "seed", "an integer >= 0", seed)
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
        for difficulty, indices in self._check_pool({} if pool is None else pool).items():
            if indices != self._pools[difficulty]:
                self._pools[difficulty] = indices
                self._begin_pass(difficulty)

    def draw(self, num_examples: int) -> list[tuple[str, int]]:
        """Return the next examples as (difficulty, index within that difficulty)."""
        require(is_integer(num_examples, 0), "num_examples", "an integer >= 0", num_examples)
        for difficulty, fraction in self._mix.items():
            if fraction > 0 and self._pools[difficulty] == []:
                raise ValueError(
                    f"the mix takes {fraction:g} from difficulty '{difficulty}', "
                    "but its pool is empty"
                )
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

    __copy__ = copy

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
            ConfigError: when the state is of another version or of other training examples; the
                sampler is unchanged then.
        """
        check_keys(state, STATE_KEYS, "sampler state", needed=STATE_KEYS)
        rule = f"those of the training examples, {self._sizes}"
        require(state["sizes"] == self._sizes, "sampler state: sizes", rule, state["sizes"])
        mix, state = self._check_mix(state["mix"]), copy.deepcopy(dict(state))
        self._seed, self._mix = state["seed"], mix
        self._quota = Quota(mix, state["counts"], state["credits"])
        self._passes, self._positions = state["passes"], state["positions"]
        self._pools, self._orders = state["pools"], {}

    def _check_mix(self, mix: object) -> dict[str, float]:
        checked = check_mix("mix", mix)
        for difficulty, fraction in checked.items():
            is_known = fraction == 0 or self._sizes.get(difficulty, 0) > 0
            rule = "that of a difficulty with training examples"
            require(is_known, f"mix: the fraction of '{difficulty}'", rule, fraction)
        # Ties between difficulties are broken by the order of the sizes, not by that of the mix.
        return {name: checked[name] for name in (*self._sizes, *checked) if name in checked}

    def _check_pool(self, pool: Mapping[str, Sequence[int]]) -> dict[str, list[int] | None]:
        checked: dict[str, list[int] | None] = dict.fromkeys(self._sizes)
        for difficulty, indices in check_keys(pool, self._sizes, "pool").items():
            size = self._sizes[difficulty]
            is_several = isinstance(indices, Iterable) and not isinstance(indices, str)
            given = list(indices) if is_several else []
            is_valid = is_several and all(is_integer(each, 0) and each < size for each in given)
            is_valid = is_valid and len(set(given)) == len(given)
            rule = f"different integers in [0, {size - 1}]"
            require(is_valid, f"pool.{difficulty}", rule, given if is_several else indices)
            checked[difficulty] = sorted(given) if len(given) < size else None
        return checked
