"""Several drawn rollouts of one example: pass@k and the majority's answer."""

from collections.abc import Sequence
from math import comb

from pixelis.data.example import Example
from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.matching import answer_key, answers_match
from pixelis.evaluation.turns import Rollout


def pass_at_k(num: int, num_right: int, k: int) -> float:
    """Probability that one of k samples is right, without bias (Chen et al. 2021, section 2.1).

    Of `num` samples `num_right` are right: 1 - C(num - num_right, k) / C(num, k), the mean over all
    subsets of k samples of whether one in it is right.

    Raises:
        ValueError: unless 1 <= k <= num and 0 <= num_right <= num.
    """
    if not (1 <= k <= num and 0 <= num_right <= num):
        raise ValueError(
            f"pass@k needs 1 <= k <= num and 0 <= num_right <= num, got {k=}, {num=}, {num_right=}"
        )
    return 1.0 - comb(num - num_right, k) / comb(num, k)


def majority_answer(rollouts: Sequence[Rollout], example: Example) -> str | None:
    """The answer that most samples give (self-consistency, Wang et al. 2023, section 2).

    Answers are the same where `answer_key` is; samples without an answer have no vote; of equally
    many votes the answer of the earlier sample wins. None where nobody answers.
    """
    votes: dict[str, list[str]] = {}
    for rollout in rollouts:
        if rollout.answer is not None:
            votes.setdefault(answer_key(rollout.answer, example), []).append(rollout.answer)
    # max keeps the first of equals, and the keys stand in the order of the samples.
    return max(votes.values(), key=len)[0] if votes else None


def wanted_ks(num: int) -> list[int]:
    """1, 2, 4, ... and `num` itself."""
    return sorted({2**power for power in range(num.bit_length())} | {num})


def repeat_fractions(
    samples: Sequence[Sequence[Rollout]], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """Measures of several samples an example.

    Returns:
        `pass_at_<k>` for k = 1, 2, 4, ... and the number of samples (`pass_at_k`; at 1 it is the
        mean accuracy of all samples); `majority_accuracy`: share of examples whose
        `majority_answer` is right.
    """
    fractions: dict[str, list[Fraction]] = {}
    for rollouts, example in zip(samples, examples, strict=True):
        right = sum(answers_match(rollout.answer, example) for rollout in rollouts)
        for k in wanted_ks(len(rollouts)):
            value = pass_at_k(len(rollouts), right, k)
            fractions.setdefault(f"pass_at_{k}", []).append((value, 1))
        elected = answers_match(majority_answer(rollouts, example), example)
        fractions.setdefault("majority_accuracy", []).append((elected, 1))
    return fractions
