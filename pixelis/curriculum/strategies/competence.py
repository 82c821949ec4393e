r"""Strategy `competence`: competence-based curriculum (Platanios et al. 2019, arXiv 1903.09848).

Each example has a rank: the empirical CDF of its difficulty score over all training examples, in
(0, 1]. With the square-root competence of the paper,

    c(t) = min(1, sqrt(t * (1 - c0^2) / T + c0^2)),

step t draws uniformly from the examples whose rank is <= c(t); c(0) = c0 and c(T) = 1.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies.base import Mix, Pool, Scores, Strategy
from pixelis.errors import ConfigError

DEFAULT_SHARE_OF_TRAINING = 0.9


def compute_competence(step: int, c0: float, total_steps: float) -> float:
    """Compute c(t), the share of the examples, easiest first, that step t draws from."""
    return min(1.0, math.sqrt(step * (1 - c0**2) / total_steps + c0**2))


def compute_ranks(scores: Sequence[float]) -> list[float]:
    """Compute each score's empirical CDF: the share of scores at or below it."""
    ordered = sorted(scores)
    return [bisect_right(ordered, score) / len(ordered) for score in scores]


class Competence(Strategy):
    """A pool that grows by rank; the mix is the pool's own share of each difficulty."""

    name = "competence"
    uses_stages = False
    awaits = None
    _ranked: list[tuple[float, str, int]] | None = None
    _ranks: list[float]
    _total_steps: float
    _last: tuple[int, Mix, Pool | None] | None = None

    def bind(self, scores: Scores) -> None:
        """Rank the training examples of every difficulty together."""
        total_steps = self.config.competence.steps
        if total_steps is None and self.max_steps is None:
            raise ConfigError("competence.steps must be given where max_steps is unknown, got None")
        self._total_steps = total_steps or DEFAULT_SHARE_OF_TRAINING * (self.max_steps or 1)
        keys, values = [], []
        for difficulty in self.config.required_difficulties:
            keys += [(difficulty, index) for index in range(len(scores[difficulty]))]
            values += scores[difficulty]
        ranks = compute_ranks(values)
        self._ranked = sorted(
            (rank, difficulty, index) for rank, (difficulty, index) in zip(ranks, keys, strict=True)
        )
        self._ranks = [rank for rank, _, _ in self._ranked]
        self._last = None

    def mix(self, state: CurriculumState, step: int) -> Mix:
        """Return each difficulty's share of the pool, so that the draw is uniform over it."""
        if self._ranked is None:
            return super().mix(state, step)
        return dict(self._let_in(step)[0])

    def pool(self, state: CurriculumState, step: int) -> Pool | None:
        """Return the examples whose rank is at most the competence of this step."""
        return self._let_in(step)[1]

    def describe(self, state: CurriculumState, step: int) -> str | None:
        """Return the number of examples in the pool, as text."""
        pool, total = self.pool(state, step), len(self._ranked or ())
        count = total if pool is None else sum(len(indices) for indices in pool.values())
        return f"the easiest {count} of {total} examples"

    def _let_in(self, step: int) -> tuple[Mix, Pool | None]:
        assert self._ranked is not None
        reached = compute_competence(step, self.config.competence.c0, self._total_steps)
        # With a c0 below the lowest rank the pool would be empty: the easiest are always in it.
        count = bisect_right(self._ranks, max(reached, self._ranks[0]))
        if self._last is None or self._last[0] != count:
            pool: Pool = {difficulty: [] for difficulty in self.config.required_difficulties}
            for _, difficulty, index in self._ranked[:count]:
                pool[difficulty].append(index)
            mix = {difficulty: len(indices) / count for difficulty, indices in pool.items()}
            self._last = (count, mix, None if count == len(self._ranked) else pool)
        return self._last[1:]
