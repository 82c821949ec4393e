r"""Strategy `self_paced`: self-paced learning (Kumar, Packer and Koller, NIPS 2010).

The paper minimises over the weights w and the choice v in {0, 1}^n

    r(w) + sum_i v_i * loss_i(w) - (1/K) * sum_i v_i,

whose solution for fixed w is v_i = 1 exactly where loss_i < 1/K = lambda; lambda then grows by a
factor until every v_i is 1. Here the examples of a scored pool (`scored_pool_size` of them, drawn
anew each time) are chosen at each interval; their losses are means over tokens, so that a long
example is not excluded for its length.
"""

import math
from typing import Literal

from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies.base import (
    Decision,
    Losses,
    Mix,
    Pool,
    Strategy,
    scored_examples,
)


class SelfPaced(Strategy):
    """A pool of the examples with a loss below lambda; the mix is their share by difficulty."""

    name = "self_paced"
    uses_stages = False
    awaits = "choice"

    def wants(self, state: CurriculumState, step: int) -> Literal["strata", "losses"]:
        """Return that only losses are needed."""
        return "losses"

    def wait(self, state: CurriculumState, step: int) -> int | None:
        """Return the steps until the pool is scored: at the start, then once an interval."""
        if not state.memory:
            return 0
        if state.memory["pool"] is None:
            return None
        return max(0, state.interval - state.steps_since_advance)

    def select(self, state: CurriculumState, step: int, losses: Losses) -> Decision:
        """Choose the examples with a loss below lambda, which grows from one choice to the next."""
        scored = [
            (loss, difficulty, index)
            for difficulty in self.config.required_difficulties
            for index, loss in scored_examples(losses, difficulty)
        ]
        limit = self._compute_first_limit([loss for loss, _, _ in scored])
        if state.memory:
            # If losses rise faster than lambda, at least the first share stays in the pool.
            limit = max(limit, state.memory["lambda"] * self.config.self_paced.growth)
        pool: Pool = {difficulty: [] for difficulty in self.config.required_difficulties}
        for loss, difficulty, index in scored:
            if loss < limit:
                pool[difficulty].append(index)
        count = sum(len(indices) for indices in pool.values())
        old_mix = self.mix(state, step)
        mix = {difficulty: len(indices) / count for difficulty, indices in pool.items()}
        is_whole = count == len(scored)
        state.memory = {
            "lambda": None if is_whole else limit,
            "pool": None if is_whole else {name: sorted(pool[name]) for name in pool},
            "mix": mix,
            "note": f"{count} of {len(scored)} scored examples are in",
        }
        state.steps_since_advance = 0
        state.visit += step > 0
        return Decision("advance", old_mix, dict(mix), state.memory["note"])

    def describe(self, state: CurriculumState, step: int) -> str | None:
        """Return the number of examples in the pool, as text."""
        return str(state.memory["note"]) if state.memory else None

    def _compute_first_limit(self, losses: list[float]) -> float:
        """Compute the lambda below which `initial_fraction` of the losses lie, ties included."""
        count = math.ceil(round(self.config.self_paced.initial_fraction * len(losses), 9))
        last = sorted(losses)[max(count, 1) - 1]
        return min((loss for loss in losses if loss > last), default=math.inf)

    def mix(self, state: CurriculumState, step: int) -> Mix:
        """Return each difficulty's share of the pool."""
        return dict(state.memory["mix"]) if state.memory else super().mix(state, step)

    def pool(self, state: CurriculumState, step: int) -> Pool | None:
        """Return the examples in the pool; None once it has all examples."""
        pool: Pool | None = state.memory["pool"]
        return pool
