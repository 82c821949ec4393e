"""Scores -> simple, medium, hard: by rank within groups, or by fixed thresholds."""

from collections.abc import Hashable, Sequence
from typing import Any

from pixelis.curriculum.difficulty import categorise
from pixelis.data.example import DIFFICULTIES
from pixelis.errors import ConfigError

# Halfway between the hardest of one category and the easiest of the next; None without either.
CutPoints = tuple[float | None, float | None]


def categorise_by_percentiles(
    scores: Sequence[float],
    *,
    groups: Sequence[Hashable],
    ties: Sequence[Any],
    percentiles: tuple[float, float],
    parents: Sequence[Hashable] | None = None,
) -> list[str]:
    """Cut each group at two percentiles of its rank.

    Args:
        scores: of the examples.
        groups: of each example (its task and split), so that every category holds every group.
        ties: what orders equal scores, such as an id: it makes the shares exact to one example and
            the same in every order of the examples.
        percentiles: the two cuts in percent.
        parents: what the groups are parts of (the task): its shares are exact as well.
    """
    keys = list(zip(scores, ties, strict=True))
    return categorise(keys, groups, percentiles, DIFFICULTIES, parents)


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, float]:
    """The two thresholds, if they are such.

    Raises:
        ConfigError: when they are not two rising numbers in [0, 1].
    """
    rising = len(thresholds) == 2 and 0 <= thresholds[0] < thresholds[1] <= 1
    if not rising:
        raise ConfigError(
            f"difficulty.thresholds must be two rising numbers in [0, 1], got {list(thresholds)}"
        )
    return thresholds[0], thresholds[1]


def categorise_by_thresholds(scores: Sequence[float], thresholds: Sequence[float]) -> list[str]:
    """Below the first threshold is simple, from the second on is hard; shares are what they are.

    Raises:
        ConfigError: when the thresholds are not two rising numbers in [0, 1].
    """
    first, second = check_thresholds(thresholds)
    return [DIFFICULTIES[(score >= first) + (score >= second)] for score in scores]


def observed_thresholds(
    scores: Sequence[float], groups: Sequence[str], categories: Sequence[str]
) -> dict[str, CutPoints]:
    """Where the percentiles cut the scores of each group, for the summary and the figure.

    A cut lies halfway between the hardest example below it and the easiest above, which are equal
    where a tie was cut. None where there is none on one side.
    """
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    for score, group, category in zip(scores, groups, categories, strict=True):
        low, high = spans.setdefault(group, {}).get(category, (score, score))
        spans[group][category] = min(low, score), max(high, score)
    return {group: _cut_points(spans[group]) for group in sorted(spans)}


def _cut_points(spans: dict[str, tuple[float, float]]) -> CutPoints:
    present = [spans.get(name) for name in DIFFICULTIES]
    cuts: list[float | None] = []
    for position in (1, 2):
        below = [span[1] for span in present[:position] if span]
        above = [span[0] for span in present[position:] if span]
        cuts.append((max(below) + min(above)) / 2 if below and above else None)
    return cuts[0], cuts[1]
