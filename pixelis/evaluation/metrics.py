"""Answer accuracy, paired comparison, rates and count errors of rollouts, by group of examples.

Groups are `all`, difficulties (`simple`), tasks (`task/object_counting`), both together
(`simple/object_counting`: a cell), sample types (`type/self_correction`) and operations of the
reference trajectory (`operation/ZOOM_IN`; an example may be in several of these).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from scipy.stats import binomtest

from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data_prep.benchmarks import WORDS
from pixelis.evaluation.intervals import Score, compute_score
from pixelis.evaluation.matching import answers_match, normalise_text, parse_number
from pixelis.evaluation.turns import FAILURES, OUTCOMES, Rollout

ALL = "all"
PREFIXES = TASK_PREFIX, TYPE_PREFIX, OPERATION_PREFIX = "task/", "type/", "operation/"
MAX_COUNT_ERROR = 1000.0  # so that one very wrong number does not outweigh all others


def group_indices(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Return group -> positions of its examples, for every group that is not empty.

    Groups are in the order difficulties, all, tasks, types, operations, cells.
    """
    difficulties = strata([example.difficulty for example in examples])
    named = [_prefixed_groups(example) for example in examples]
    order = sorted(set().union(*named), key=_prefix_order) if named else ()
    groups: dict[str, list[int]] = {name: [] for name in (*difficulties, ALL, *order)}
    for index, example in enumerate(examples):
        for name in (example.difficulty, ALL, *sorted(named[index])):
            groups.setdefault(name, []).append(index)
    for difficulty in difficulties:
        for index in groups[difficulty]:
            groups.setdefault(f"{difficulty}/{examples[index].task}", []).append(index)
    return {name: indices for name, indices in groups.items() if indices}


def strata(groups: Iterable[str]) -> list[str]:
    """Select the names of difficulties, from simple to hard, then of a benchmark's own groups."""
    names = dict.fromkeys(name for name in groups if name != ALL and "/" not in name)
    return [*(d for d in DIFFICULTIES if d in names), *(n for n in names if n not in DIFFICULTIES)]


def is_cell(group: str) -> bool:
    """Return whether a group is a cell of a difficulty and a task."""
    return "/" in group and not group.startswith(PREFIXES)


def _prefixed_groups(example: Example) -> set[str]:
    operations = {OPERATION_PREFIX + step.operation for step in example.trajectory}
    return {TASK_PREFIX + example.task, TYPE_PREFIX + example.sample_type, *operations}


def _prefix_order(group: str) -> tuple[int, str]:
    return next(i for i, prefix in enumerate(PREFIXES) if group.startswith(prefix)), group


@dataclass(frozen=True)
class Comparison:
    """The comparison of adapter and base on the same examples.

    Attributes:
        gain: adapter's accuracy minus the base's; its interval resamples examples, not models.
        num_gained: examples that only the adapter answers right.
        num_lost: examples that only the base answers right.
        p_value: p-value of McNemar's exact test, two-sided.
    """

    gain: Score
    num_gained: int
    num_lost: int
    p_value: float


def correct_answers(rollouts: Sequence[Rollout], examples: Sequence[Example]) -> list[bool]:
    """Return for each rollout whether its answer is right.

    Raises:
        ValueError: when rollouts and examples are not of the same ids in the same order.
    """
    if [r.example_id for r in rollouts] != [e.id for e in examples]:
        raise ValueError("rollouts and examples must have the same ids in the same order")
    return [answers_match(r.answer, e) for r, e in zip(rollouts, examples, strict=True)]


def accuracy_table(
    rollouts: Sequence[Rollout], examples: Sequence[Example], *, num_samples: int, seed: int
) -> dict[str, Score]:
    """Return the share of right answers (`answers_match`) by group; no answer counts as wrong."""
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
    """Compare adapter and base by group, with McNemar's exact test (McNemar 1947).

    If both are equally good, an example that only one of them answers right is equally likely to be
    either's: a two-sided binomial test with p = 1/2. Without such examples the p-value is 1. The
    p-values of several groups are not corrected for their number.
    """
    before, after = correct_answers(base, examples), correct_answers(adapter, examples)
    comparisons = {}
    for name, indices in group_indices(examples).items():
        differences = [int(after[i]) - int(before[i]) for i in indices]
        gained, lost = differences.count(1), differences.count(-1)
        p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        gain = compute_score(differences, num_samples=num_samples, seed=seed)
        comparisons[name] = Comparison(gain, gained, lost, float(p_value))
    return comparisons


def compute_rates(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Return means of lengths, outcomes and failures over at least one rollout.

    They describe cost and failures; rates of calls have intervals (`measures.call_fractions`).

    Returns:
        `mean_operations`: operations run in a rollout; `mean_new_tokens`: tokens generated in a
        rollout; `outcome_<name>`: share of rollouts with this outcome, in [0, 1]; `failure_<kind>`:
        turns of a rollout with this failure (`Turn.failure`).
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
    """Return `compute_rates` by group."""
    return {
        name: compute_rates([rollouts[i] for i in indices])
        for name, indices in group_indices(examples).items()
    }


def parse_count(answer: str | None) -> float | None:
    """Parse a count in digits or as a word up to fifteen; return None for any other answer.

    `3 or 4` and `three dogs` are not counts.
    """
    if answer is None:
        return None
    word = normalise_text(answer)
    return float(WORDS.index(word)) if word in WORDS else parse_number(answer)


def count_errors(
    rollouts: Sequence[Rollout], examples: Sequence[Example], *, num_samples: int, seed: int
) -> dict[str, tuple[Score, int]]:
    """Return the root mean squared error of counts (Acharya et al. 2019, "TallyQA", section 5).

    A missing answer, or one that is not a number, counts as 0. One error is at most
    `MAX_COUNT_ERROR`. The interval is the root of the interval of the mean square.

    Returns:
        Stratum or `all` -> (RMSE in counted things, number of answers that are not a number).

    Raises:
        ValueError: when a ground truth is not a number, naming the example.
    """
    squares, missing = [], []
    for rollout, example in zip(rollouts, examples, strict=True):
        truth, count = parse_count(example.ground_truth), parse_count(rollout.answer)
        if truth is None:
            raise ValueError(
                f"the truth of a count must be a number, got {example.ground_truth!r:.60} "
                f"(example {example.id})"
            )
        squares.append(min(abs((count or 0.0) - truth), MAX_COUNT_ERROR) ** 2)
        missing.append(count is None)
    errors = {}
    groups = group_indices(examples)
    for name in (*strata(groups), ALL):
        chosen = groups[name]
        mean = compute_score([squares[i] for i in chosen], num_samples=num_samples, seed=seed)
        root = replace(mean, value=sqrt(mean.value), low=sqrt(mean.low), high=sqrt(mean.high))
        errors[name] = root, sum(missing[i] for i in chosen)
    return errors
