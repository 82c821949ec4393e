"""What rollouts are worth: answer accuracy with intervals, paired comparison, rates of the calls.

Groups are named `all`, by difficulty (`simple`), by task (`task/object_counting`) and by both
(`simple/object_counting`).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pixelis.data.example import DIFFICULTIES, Example
from pixelis.evaluation.rollout import ANSWER, CALL, OUTCOMES, Rollout

ALL = "all"
TASK_PREFIX = "task/"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
# Resampled positions are drawn in blocks of about this many: memory stays within some megabytes.
_BLOCK = 1_000_000


@dataclass(frozen=True)
class Score:
    """A mean with its confidence interval.

    Attributes:
        value: mean over the group, in [0, 1] for accuracies, in [-1, 1] for gains.
        low: lower end of the interval.
        high: upper end of the interval.
        num: examples in the group.
    """

    value: float
    low: float
    high: float
    num: int


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


def normalise_text(text: str) -> str:
    """Case folded, every run of white space one space, none at the ends."""
    return " ".join(text.casefold().split())


def _same_text(predicted: str, truth: str) -> bool:
    return normalise_text(predicted) == normalise_text(truth)


def _same_value(predicted: str, truth: str) -> bool:
    a, b = predicted.strip(), truth.strip()
    if _NUMBER.fullmatch(a) and _NUMBER.fullmatch(b):
        return float(a) == float(b)
    return _same_text(predicted, truth)


# A text that was read is characters, even where these are digits.
_MATCHERS: dict[str, Callable[[str, str], bool]] = {"text_extraction": _same_text}


def answers_match(predicted: str | None, example: Example) -> bool:
    """Whether an answer is right: exact match after normalisation, by task.

    Case and runs of white space never count; anything else does (no partial credit, no synonyms:
    `a red circle` is not `red circle`). Several texts are right in order only. Two decimal numbers
    are compared by value (`3`, `3.0` and `+3` agree; `three` and `3` do not), but for
    text_extraction, where digits are characters. No answer is wrong. As the normalised exact match
    of SQuAD (Rajpurkar et al. 2016, section 6.1), without its removal of articles and punctuation.
    """
    if predicted is None:
        return False
    return _MATCHERS.get(example.task, _same_value)(predicted, example.ground_truth)


def bootstrap_interval(
    values: Sequence[float], *, num_samples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979; Efron and Tibshirani 1993, ch. 13).

    `num_samples` times, as many values as there are are drawn with replacement; the interval holds
    the middle `level` of their means. Deterministic by the seed. Where all values are equal it has
    no width, however few they are: read it with the group's size.

    Raises:
        ValueError: when there are no values.
    """
    if not values:
        raise ValueError("an interval needs at least one value, got none")
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(data))
    means = [
        data[generator.integers(0, len(data), (min(block, num_samples - start), len(data)))].mean(1)
        for start in range(0, num_samples, block)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def compute_score(values: Sequence[float], *, num_samples: int, seed: int) -> Score:
    """The mean of values with its 95 % bootstrap interval."""
    low, high = bootstrap_interval(values, num_samples=num_samples, seed=seed)
    return Score(sum(values) / len(values), low, high, len(values))


def group_indices(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Positions of the examples of every group: difficulties, all, tasks, cells of both."""
    groups: dict[str, list[int]] = {}
    for name in (*DIFFICULTIES, ALL, *sorted({TASK_PREFIX + e.task for e in examples})):
        groups[name] = []
    for index, example in enumerate(examples):
        for name in (example.difficulty, ALL, TASK_PREFIX + example.task):
            groups.setdefault(name, []).append(index)
    for difficulty in DIFFICULTIES:
        for index in groups[difficulty]:
            groups.setdefault(f"{difficulty}/{examples[index].task}", []).append(index)
    return {name: indices for name, indices in groups.items() if indices}


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
    """How the model acts, over at least one rollout.

    Returns:
        `valid_call_rate`: well-formed calls among all turns that are not an answer;
        `failed_operation_rate`: operations that gave an error among those run (unknown operation,
        wrong arguments, nothing found); `repeated_call_rate`: calls equal to an earlier one of
        their rollout among all calls (these three are absent where nothing was called);
        `mean_operations`: operations run, a rollout; `mean_new_tokens`: tokens said, a rollout;
        `outcome_<name>`: share of rollouts that ended so.
    """
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    num_calls = sum(turn.kind == CALL for turn in turns)
    num_run = sum(rollout.num_operations for rollout in rollouts)
    num_acts = sum(turn.kind != ANSWER for turn in turns)
    outcomes = Counter(rollout.outcome for rollout in rollouts)
    shares = {
        "valid_call_rate": (num_calls, num_acts),
        "failed_operation_rate": (sum(r.num_failed for r in rollouts), num_run),
        "repeated_call_rate": (sum(r.num_repeated for r in rollouts), num_calls),
        "mean_operations": (num_run, len(rollouts)),
        "mean_new_tokens": (sum(turn.num_new_tokens for turn in turns), len(rollouts)),
        **{f"outcome_{name}": (outcomes[name], len(rollouts)) for name in OUTCOMES},
    }
    return {name: part / whole for name, (part, whole) in shares.items() if whole}


def rate_table(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, dict[str, float]]:
    """`compute_rates` by group."""
    return {
        name: compute_rates([rollouts[i] for i in indices])
        for name, indices in group_indices(examples).items()
    }
