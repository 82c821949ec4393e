"""The model's score: how surprised the base model is by the answer."""

import math
from collections.abc import Callable, Sequence

from pixelis.data.example import Example
from pixelis.data_prep.difficulty.score import Score, Scorer

# Mean loss in nats per token of each example's final turn; infinite where the example cannot be
# read by the model.
AnswerLosses = Callable[[Sequence[Example]], list[float]]


def loss_score(loss: float) -> Score:
    """1 - exp(-loss): 0 where the answer is certain, 1 where it is out of the model's reach.

    A loss that is infinite or no number (an example too long for the model, or one that it cannot
    read) scores 1: the others are scored all the same.
    """
    value = 1.0 if math.isnan(loss) else -math.expm1(-max(0.0, loss))
    return Score(value, {"answer_loss": value})


def model_scorer(answer_losses: AnswerLosses) -> Scorer:
    """A scorer by the losses that `answer_losses` computes."""

    def score(examples: Sequence[Example]) -> list[Score]:
        return [loss_score(loss) for loss in answer_losses(examples)]

    return score
