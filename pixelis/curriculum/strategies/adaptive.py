r"""Strategy `adaptive`: a bandit over difficulties (Graves et al. 2017, arXiv 1704.03003, EXP3.S).

The paper keeps a weight w_i per task and draws tasks from

    pi_i = (1 - eps) * exp(w_i) / sum_j exp(w_j) + eps / N.

After each reward r (a measure of learning progress, scaled to [-1, 1] between the 20th and 80th
percentile of those seen), with step size eta and the share alpha_t that lets weights recover,

    w_i <- log[(1 - alpha_t) * exp(v_i) + alpha_t / (N - 1) * sum_{j != i} exp(v_j)],
    where v_i = w_i + eta * r_i.

Here the reward of a difficulty is the gain of its stratum since the last evaluation. Every
difficulty is measured each time, so the paper's division by pi_i, which compensates for unmeasured
tasks, is not needed, nor are its random draws: the mix is pi itself, drawn by quota. eps is N *
`adaptive.floor`. alpha_t is 1/(t+1): the paper's 1/t would forget the first reward completely.
"""

import math
from dataclasses import replace
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

LARGEST_MEMORY = 300  # rewards that the percentiles are taken over


class Adaptive(Strategy):
    """A mix that moves, once per interval, towards the difficulties that are being learned.

    With `adaptive.active_fraction`, training examples are scored too, before the first step and at
    each round: the pool of a difficulty is those with the highest losses below a noise cut.
    """

    name = "adaptive"
    uses_stages = False
    awaits = "mix"

    def wait(self, state: CurriculumState, step: int) -> int | None:
        """Return the steps until the next reward is measured, or the first pool is scored."""
        if self._is_active and "pool" not in state.memory:
            return 0
        return max(0, state.interval - state.steps_since_advance)

    def wants(self, state: CurriculumState, step: int) -> Literal["strata", "losses"]:
        """Return that losses are needed first, if the strategy selects by them, and strata then."""
        is_scored = not self._is_active or state.memory.get("scored_at") == step
        return "strata" if is_scored else "losses"

    def select(self, state: CurriculumState, step: int, losses: Losses) -> Decision | None:
        """Select examples within each difficulty; return a decision only before the first step."""
        is_start = "pool" not in state.memory
        settings, pool, num_scored, num_noisy = self.config.adaptive, {}, 0, 0
        assert settings.active_fraction is not None
        for name in self.config.required_difficulties:
            scored = scored_examples(losses, name)
            pool[name], noisy = select_active(scored, settings.active_fraction, settings.noise_cut)
            num_scored += len(scored)
            num_noisy += noisy
        count = sum(len(indices) for indices in pool.values())
        note = f"{count} of {num_scored} scored examples are in, {num_noisy} are out as noise"
        state.memory |= {"pool": pool, "scored_at": step, "note": note}
        mix = self.mix(state, step)
        return Decision("advance", mix, mix, note) if is_start else None

    def decide(self, state: CurriculumState, step: int) -> Decision:
        """Reward each difficulty with the gain of its stratum, and change the mix."""
        names, now = self.config.required_difficulties, state.history[-1]
        old_mix, memory = self.mix(state, step), state.memory
        if "strata" in memory:
            gains = [now[name] - memory["strata"][name] for name in names]
            seen = (memory["rewards"] + gains)[-LARGEST_MEMORY:]
            rounds = memory["rounds"] + 1
            rewards = [scale_reward(gain, seen) for gain in gains]
            weights = update_weights(memory["weights"], rewards, self.config.adaptive.rate, rounds)
        else:
            weights, seen, rounds = [0.0] * len(names), [], 0
        strata = {name: now[name] for name in names}
        memory |= {"weights": weights, "rewards": seen, "rounds": rounds, "strata": strata}
        decision = self.change(state, old_mix, self.mix(state, step))
        return replace(decision, reason=memory.get("note"))

    def mix(self, state: CurriculumState, step: int) -> Mix:
        """Return the bandit's distribution: at least `adaptive.floor` for each difficulty."""
        names, floor = self.config.required_difficulties, self.config.adaptive.floor
        weights = state.memory.get("weights", [0.0] * len(names))
        exponentials = [math.exp(weight) for weight in weights]
        free, total = max(0.0, 1 - floor * len(names)), sum(exponentials)
        return {
            name: floor + free * value / total
            for name, value in zip(names, exponentials, strict=True)
        }

    def pool(self, state: CurriculumState, step: int) -> Pool | None:
        """Return the selected examples, or None without `adaptive.active_fraction`."""
        pool: Pool | None = state.memory["pool"] if self._is_active else None
        return pool

    def describe(self, state: CurriculumState, step: int) -> str | None:
        """Return the mix."""
        shares = " ".join(f"{name} {part:.0%}" for name, part in self.mix(state, step).items())
        return f"mix {shares}"

    @property
    def _is_active(self) -> bool:
        return self.config.adaptive.active_fraction is not None


def select_active(
    scored: list[tuple[int, float]], active_fraction: float, noise_cut: float
) -> tuple[list[int], int]:
    """Select the examples with the highest losses, without those that look mislabelled.

    Examples with a loss above the quantile `noise_cut` are taken for noise; of the others, the
    `active_fraction` of all that were scored with the highest losses are selected: at least one,
    and where losses are equal the lower index. The order of `scored` changes nothing.

    Returns:
        The selected indices, in order, and the number of examples taken for noise.
    """
    ordered = sorted(loss for _, loss in scored)
    # Rounded first: 0.9 * 10 must not become 9.000000000000002, and then 10.
    limit = ordered[max(1, math.ceil(round(noise_cut * len(ordered), 9))) - 1]
    clean = sorted((-loss, index) for index, loss in scored if loss <= limit)
    count = max(1, math.ceil(round(active_fraction * len(ordered), 9)))
    return sorted(index for _, index in clean[:count]), len(scored) - len(clean)


def scale_reward(reward: float, seen: list[float]) -> float:
    """Scale a reward to [-1, 1] between the 20th and 80th percentile of those seen."""
    ordered = sorted(seen)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.8))
    if high == low:
        return 0.0
    return min(1.0, max(-1.0, 2 * (reward - low) / (high - low) - 1))


def update_weights(
    weights: list[float], rewards: list[float], rate: float, rounds: int
) -> list[float]:
    """Compute the weights after a round, up to a constant that no mix depends on."""
    if len(weights) == 1:
        return weights
    # Only differences between weights matter: with the largest at 0, exp can't overflow.
    raised = [weight + rate * reward for weight, reward in zip(weights, rewards, strict=True)]
    values = [math.exp(value - max(raised)) for value in raised]
    shared = 1 / (rounds + 1)
    others = [(sum(values) - value) / (len(values) - 1) for value in values]
    return [
        math.log((1 - shared) * value + shared * other)
        for value, other in zip(values, others, strict=True)
    ]
