"""By how much counts are off: the root mean squared error that counting benchmarks give."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from pixelis.data.example import Example
from pixelis.data_prep.benchmarks.tallyqa import WORDS
from pixelis.evaluation.groups import ALL, group_indices, strata
from pixelis.evaluation.intervals import Score, compute_score
from pixelis.evaluation.matching import normalise_text, parse_number
from pixelis.evaluation.turns import Rollout

MAX_ERROR = 1000.0  # so that one wild number does not drown all others


def told_count(answer: str | None) -> float | None:
    """The number that an answer gives, in digits or as a word up to fifteen; None where it is none.

    `3 or 4` and `three dogs` are no numbers.
    """
    if answer is None:
        return None
    word = normalise_text(answer)
    return float(WORDS.index(word)) if word in WORDS else parse_number(answer)


def count_errors(
    rollouts: Sequence[Rollout], examples: Sequence[Example], *, num_samples: int, seed: int
) -> dict[str, tuple[Score, int]]:
    """RMSE of the counts (Acharya et al. 2019, "TallyQA", section 5) by stratum, and of all.

    The root of the mean of (told - true) squared. The rule for an answer that is missing or no
    number: it counts as 0 things, and is counted. One error is at most `MAX_ERROR`. The interval is
    that of the mean square, its ends under the root.

    Returns:
        group -> (RMSE in things, how many answers were missing or no number).

    Raises:
        ValueError: when a ground truth is no number, naming the example.
    """
    squares, untold = [], []
    for rollout, example in zip(rollouts, examples, strict=True):
        truth, told = told_count(example.ground_truth), told_count(rollout.answer)
        if truth is None:
            raise ValueError(
                f"the truth of a count must be a number, got {example.ground_truth!r:.60} "
                f"(example {example.id})"
            )
        squares.append(min(abs((told or 0.0) - truth), MAX_ERROR) ** 2)
        untold.append(told is None)
    found = {}
    groups = group_indices(examples)
    for name in (*strata(groups), ALL):
        chosen = groups[name]
        mean = compute_score([squares[i] for i in chosen], num_samples=num_samples, seed=seed)
        root = replace(mean, value=sqrt(mean.value), low=sqrt(mean.low), high=sqrt(mean.high))
        found[name] = root, sum(untold[i] for i in chosen)
    return found
