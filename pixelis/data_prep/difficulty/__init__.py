"""The difficulty of an example: three scorers with one signature, chosen by name.

A scorer gives every example a value in [0, 1] and its components, which explain the value in the
data. No scorer knows the splits or imports torch: the scorer `model` takes the function that
computes the base model's losses as an argument.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pixelis.data.example import Example
from pixelis.data_prep.difficulty.composite import COMPONENTS, Score, Scorer, composite_scorer
from pixelis.data_prep.difficulty.multi import multi_scorer
from pixelis.errors import ConfigError

__all__ = ["COMPONENTS", "SCORERS", "AnswerLosses", "Score", "Scorer", "build_scorer"]

SCORERS = ("composite", "model", "multi")
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})
# Mean loss in nats per token of each example's final turn; infinite where the example cannot be
# read by the model.
AnswerLosses = Callable[[Sequence[Example]], list[float]]


def build_scorer(
    name: str,
    *,
    weights: Mapping[str, float],
    task_weights: Mapping[str, float] = NO_WEIGHTS,
    answer_losses: AnswerLosses | None = None,
) -> Scorer:
    """Build the named scorer, a function from examples to their scores in the same order.

    Args:
        name: one of SCORERS.
        weights: weights of the components, >= 0, with sum 1. Used by `composite` only.
        task_weights: hardness of each task in [0, 1]; a task without a weight counts as medium.
            Used by `composite` only.
        answer_losses: computes the base model's loss on each final turn. Used by `model` only.

    Raises:
        ConfigError: when the scorer is `model` and there is no `answer_losses`.
    """
    if name == "composite":
        return composite_scorer(weights, task_weights)
    if name == "multi":
        return multi_scorer()
    assert name == "model", name
    if answer_losses is None:
        raise ConfigError("difficulty.scorer model needs a base model, and none was given")
    return lambda examples: [loss_score(loss) for loss in answer_losses(examples)]


def loss_score(loss: float) -> Score:
    """Return 1 - exp(-loss): 0 where the answer is certain, 1 where the model cannot reach it.

    A loss that is infinite or NaN (the model cannot read the example, or it is too long) scores 1,
    so that one such example does not stop the scoring.
    """
    value = 1.0 if math.isnan(loss) else -math.expm1(-max(0.0, loss))
    return Score(value, {"answer_loss": value})
