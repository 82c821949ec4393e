"""Draw the training examples whose losses are measured, and select examples by their loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from pixelis.curriculum.checks import is_number, require


def draw_scored(
    sizes: Mapping[str, int], pool_size: int | None, *, seed: int, step: int
) -> list[tuple[str, int]]:
    """Draw the examples that are scored after a step, as (difficulty, index) pairs.

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


def check_losses(
    difficulty: str, losses: Mapping[str, Mapping[int, float]]
) -> list[tuple[int, float]]:
    """Return the (index, loss) pairs of a difficulty if there is one and all are finite."""
    given = losses.get(difficulty) or {}
    rule = "given for at least one training example of each difficulty that a stage uses"
    require(len(given) > 0, f"the losses of difficulty '{difficulty}'", rule, dict(given))
    for index, loss in given.items():
        key = f"the loss of {difficulty} example {index}"
        require(is_number(loss, 0), key, "a finite number >= 0", loss)
    return [(index, float(loss)) for index, loss in given.items()]


@dataclass(frozen=True)
class Selection:
    """The selected indices, in order, and the number of examples taken for noise."""

    chosen: list[int]
    num_noisy: int


def select_active(
    scored: list[tuple[int, float]], active_fraction: float, noise_cut: float
) -> Selection:
    """Select the examples with the highest losses, without those that look mislabelled.

    Examples with a loss above the quantile `noise_cut` are taken for noise; of the others, the
    `active_fraction` of all that were scored with the highest losses are chosen: at least one, and
    where losses are equal the lower index. The order of `scored` changes nothing.
    """
    ordered = sorted(loss for _, loss in scored)
    # Rounded first: 0.9 * 10 must not become 9.000000000000002, and then 10.
    limit = ordered[max(1, math.ceil(round(noise_cut * len(ordered), 9))) - 1]
    clean = sorted((-loss, index) for index, loss in scored if loss <= limit)
    count = max(1, math.ceil(round(active_fraction * len(ordered), 9)))
    return Selection(sorted(index for _, index in clean[:count]), len(scored) - len(clean))
