"""Groups of examples, scores by group, paired comparison, rates, count errors.

Groups are `all`, difficulties (`simple`), tasks (`task/object_counting`), both together
(`simple/object_counting`: a cell), sample types (`type/self_correction`) and operations of the
reference trajectory (`operation/ZOOM_IN`; an example may be in several of these).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from scipy.stats import binomtest

from pixelis.data.example import DIFFICULTIES, Example, chance_level
from pixelis.data_prep.benchmarks import WORDS
from pixelis.evaluation.intervals import (
    Fraction,
    Score,
    difference_score,
    mean_score,
    share_score,
)
from pixelis.evaluation.matching import answers_match, normalise_text, parse_number
from pixelis.evaluation.turns import FAILURES, OUTCOMES, Rollout

ALL = "all"
PREFIXES = TASK_PREFIX, TYPE_PREFIX, OPERATION_PREFIX = "task/", "type/", "operation/"
MAX_COUNT_ERROR = 1000.0  # so that one very wrong number does not outweigh all others


@dataclass(frozen=True)
class Comparison:
    """The comparison of adapter and base on the same examples.

    The interval of the gain is about examples, not about models that were trained again.
    """

    gain: Score  # the adapter's accuracy minus the base's
    num_gained: int  # examples that only the adapter answers right
    num_lost: int  # examples that only the base answers right
    p_value: float  # of McNemar's exact test, two-sided


def group_indices(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Return group -> positions of its examples, for every group that is not empty.

    Groups are in the order difficulties, all, others by name.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        names = [example.difficulty, ALL, f"{example.difficulty}/{example.task}"]
        names += [TASK_PREFIX + example.task, TYPE_PREFIX + example.sample_type]
        names += sorted({OPERATION_PREFIX + step.operation for step in example.trajectory})
        for name in names:
            groups.setdefault(name, []).append(index)
    first = [name for name in (*strata(groups), ALL) if name in groups]
    return {name: groups[name] for name in (*first, *sorted(groups.keys() - first))}


def strata(groups: Iterable[str]) -> list[str]:
    """Select the names of difficulties, from simple to hard, then of a benchmark's own groups."""
    names = dict.fromkeys(name for name in groups if name != ALL and "/" not in name)
    return [*(d for d in DIFFICULTIES if d in names), *(n for n in names if n not in DIFFICULTIES)]


def is_cell(group: str) -> bool:
    """Return whether a group is a cell of a difficulty and a task."""
    return "/" in group and not group.startswith(PREFIXES)


def is_share(measure: str) -> bool:
    """Return whether a measure is a share in [0, 1]; others are mean numbers of steps."""
    return not measure.startswith("steps_")


def score_table(
    fractions: Mapping[str, Sequence[Fraction]], groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Score]]:
    """Return the score of every measure in every group: group -> measure -> score.

    `fractions` has one per example. Measures that are not defined for a group are left out.
    """
    table: dict[str, dict[str, Score]] = {}
    for group, indices in groups.items():
        for name, values in fractions.items():
            score = _compute_score(name, [values[i] for i in indices])
            if score is not None:
                table.setdefault(group, {})[name] = score
    return table


def _compute_score(measure: str, fractions: Sequence[Fraction]) -> Score | None:
    if is_share(measure):
        return share_score(fractions)
    numbers = [fraction[0] for fraction in fractions if fraction is not None]
    return mean_score(numbers) if numbers else None


def share_table(values: Sequence[bool], groups: Mapping[str, Sequence[int]]) -> dict[str, Score]:
    """Return the share of true values in every group, with its 95 % interval."""
    table = score_table({"share": [(value, 1) for value in values]}, groups)
    return {group: scores["share"] for group, scores in table.items()}


def chance_levels(examples: Sequence[Example]) -> dict[str, float | None]:
    """Return the mean chance level of every group's examples; None if that of one is not known."""
    levels = [chance_level(example.provenance) for example in examples]
    means: dict[str, float | None] = {}
    for name, indices in group_indices(examples).items():
        known = [level for i in indices if (level := levels[i]) is not None]
        means[name] = sum(known) / len(known) if len(known) == len(indices) else None
    return means


def correct_answers(rollouts: Sequence[Rollout], examples: Sequence[Example]) -> list[bool]:
    """Return for each rollout, in the examples' order, whether its answer is right."""
    same = [r.example_id for r in rollouts] == [e.id for e in examples]
    assert same, "rollouts and examples must have the same ids in the same order"
    return [answers_match(r.answer, e) for r, e in zip(rollouts, examples, strict=True)]


def paired_comparison(
    base: Sequence[Rollout], adapter: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, Comparison]:
    """Compare adapter and base by group, with McNemar's exact test (McNemar 1947).

    If both are equally good, an example that only one of them answers right is equally likely to be
    either's: a two-sided binomial test with p = 1/2. Without such examples the p-value is 1. The
    p-values of several groups are not corrected for their number (`holm_corrected`).
    """
    before, after = correct_answers(base, examples), correct_answers(adapter, examples)
    comparisons = {}
    for name, indices in group_indices(examples).items():
        gained = sum(after[i] and not before[i] for i in indices)
        lost = sum(before[i] and not after[i] for i in indices)
        p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        gain = difference_score(gained, lost, len(indices))
        comparisons[name] = Comparison(gain, gained, lost, float(p_value))
    return comparisons


def holm_corrected(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return the comparisons with p-values corrected for their number (Holm 1979)."""
    corrected, p_value = dict(comparisons), 0.0
    by_p_value = sorted(comparisons.items(), key=lambda item: item[1].p_value)
    for rank, (name, pair) in enumerate(by_p_value):
        # Never below the corrected p-value of a clearer difference.
        p_value = max(p_value, min(1.0, (len(comparisons) - rank) * pair.p_value))
        corrected[name] = replace(pair, p_value=p_value)
    return corrected


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


def failure_shares(rollouts: Sequence[Rollout]) -> dict[str, Score]:
    """Return failure (`Turn.failure`) -> share of at least one rollout's with it, and interval."""
    scores = {
        kind: share_score([(bool(rollout.failures[kind]), 1) for rollout in rollouts])
        for kind in FAILURES
    }
    return {kind: score for kind, score in scores.items() if score is not None}


def parse_count(answer: str | None) -> float | None:
    """Parse a count in digits or as a word up to fifteen; return None for any other answer.

    `3 or 4` and `three dogs` are not counts.
    """
    if answer is None:
        return None
    word = normalise_text(answer)
    return float(WORDS.index(word)) if word in WORDS else parse_number(answer)


def count_errors(
    rollouts: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, tuple[Score, int]]:
    """Return the root mean squared error of counts (Acharya et al. 2019, "TallyQA", section 5).

    An answer that is missing or not a number counts as 0. The interval is the root of the interval
    of the mean square.

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
    for name, indices in group_indices(examples).items():
        if "/" not in name:
            mean = mean_score([squares[i] for i in indices])
            interval = mean.interval and (sqrt(mean.interval[0]), sqrt(mean.interval[1]))
            root = replace(mean, value=sqrt(mean.value), interval=interval)
            errors[name] = root, sum(missing[i] for i in indices)
    return errors
