"""What rollouts are worth: answer accuracy with intervals, paired comparison, how rollouts end.

All of it by group (`pixelis.evaluation.groups`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from pixelis.data.example import Example
from pixelis.evaluation.groups import (
    ALL,
    OPERATION_PREFIX,
    TASK_PREFIX,
    TYPE_PREFIX,
    group_indices,
)
from pixelis.evaluation.intervals import Score, bootstrap_interval, compute_score
from pixelis.evaluation.matching import answers_match, normalise_text
from pixelis.evaluation.turns import FAILURES, OUTCOMES, Rollout

__all__ = [
    "ALL",
    "OPERATION_PREFIX",
    "TASK_PREFIX",
    "TYPE_PREFIX",
    "Comparison",
    "Score",
    "accuracy_table",
    "answers_match",
    "bootstrap_interval",
    "compute_rates",
    "compute_score",
    "correct_answers",
    "group_indices",
    "normalise_text",
    "paired_comparison",
    "rate_table",
]


@dataclass(frozen=True)
class Comparison:
    """Adapter against base on the same examples.

    Attributes:
        gain: adapter's accuracy minus the base's; its interval resamples examples, not models.
        num_gained: examples that only the adapter answers right.
        num_lost: examples that only the base answers right.
        p_value: of McNemar's exact test, two-sided.
    """

    gain: Score
    num_gained: int
    num_lost: int
    p_value: float


def correct_answers(rollouts: Sequence[Rollout], examples: Sequence[Example]) -> list[bool]:
    """For each rollout whether its answer is right.

    Raises:
        ValueError: when rollouts and examples are not of the same ids in the same order.
    """
    if [r.example_id for r in rollouts] != [e.id for e in examples]:
        raise ValueError("rollouts and examples must have the same ids in the same order")
    return [answers_match(r.answer, e) for r, e in zip(rollouts, examples, strict=True)]


def accuracy_table(
    rollouts: Sequence[Rollout],
    examples: Sequence[Example],
    *,
    num_samples: int,
    seed: int,
) -> dict[str, Score]:
    """Answer accuracy: the share of examples whose answer is right (`answers_match`), by group.

    A rollout without an answer counts as wrong. Only groups that have examples are there.
    """
    correct = correct_answers(rollouts, examples)
    return {
        name: compute_score([correct[i] for i in indices], num_samples=num_samples, seed=seed)
        for name, indices in group_indices(examples).items()
    }


def paired_comparison(
    base: Sequence[Rollout],
    adapter: Sequence[Rollout],
    examples: Sequence[Example],
    *,
    num_samples: int,
    seed: int,
) -> dict[str, Comparison]:
    """Adapter against base by group, with McNemar's exact test (McNemar 1947).

    Of the examples that just one of the two answers right, each is as likely to be either's when
    they are equally good: a binomial test with p = 1/2 on these, two-sided; 1 where there are
    none. The p-values of several groups are not corrected for their number.
    """
    before, after = correct_answers(base, examples), correct_answers(adapter, examples)
    found = {}
    for name, indices in group_indices(examples).items():
        differences = [int(after[i]) - int(before[i]) for i in indices]
        gained, lost = differences.count(1), differences.count(-1)
        p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        gain = compute_score(differences, num_samples=num_samples, seed=seed)
        found[name] = Comparison(gain, gained, lost, float(p_value))
    return found


def compute_rates(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How long rollouts are and how they end: plain means over at least one rollout.

    These describe and compare nothing; rates of calls have intervals (`calls.call_fractions`). The
    definitions are this project's own; tokens and turns are what costs are counted in, ends and
    failures what is counted by kind so that a loop or a model that never stops is seen.

    Returns:
        `mean_operations`: operations run, a rollout; `mean_new_tokens`: tokens said, a rollout;
        `outcome_<name>`: share of rollouts that ended so, in [0, 1]; `failure_<kind>`: turns that
        failed so (`Turn.failure`), a rollout.
    """
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    outcomes = Counter(rollout.outcome for rollout in rollouts)
    failures = Counter(turn.failure for turn in turns)
    sums = {
        "mean_operations": sum(rollout.num_operations for rollout in rollouts),
        "mean_new_tokens": sum(turn.num_new_tokens for turn in turns),
        **{f"outcome_{name}": outcomes[name] for name in OUTCOMES},
        **{f"failure_{kind}": failures[kind] for kind in FAILURES},
    }
    return {name: total / len(rollouts) for name, total in sums.items()}


def rate_table(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, dict[str, float]]:
    """`compute_rates` by group."""
    return {
        name: compute_rates([rollouts[i] for i in indices])
        for name, indices in group_indices(examples).items()
    }
