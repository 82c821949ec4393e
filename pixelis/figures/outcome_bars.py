"""Where rollouts fail: by group, the shares of how they ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.figures.bars import Bars, Series

# From right to worst; the rest of the palette is for kinds that come later.
KINDS = {
    "right": "#009E73",
    "wrong answer": "#E69F00",
    "called until the limit": "#CC79A7",
    "no answer": "#D55E00",
}
OTHER = "#56B4E9"


def outcome_bars(table: Sequence[Mapping[str, Any]]) -> Bars:
    """Stacked shares of the kinds of endings.

    Args:
        table: Rows with `group` and `kind` (of `KINDS`, or another), a row a rollout.
    """
    groups = list(dict.fromkeys(str(row["group"]) for row in table))
    known = {str(row["kind"]) for row in table}
    kinds = [kind for kind in KINDS if kind in known] + sorted(known - KINDS.keys())
    counts = {
        group: [str(row["kind"]) for row in table if str(row["group"]) == group] for group in groups
    }
    series = [
        Series(
            kind,
            [counts[group].count(kind) / len(counts[group]) for group in groups],
            KINDS.get(kind, OTHER),
            notes=[
                f"{group}: {counts[group].count(kind)} of {len(counts[group])} {kind}"
                for group in groups
            ],
        )
        for kind in kinds
    ]
    label = "share of the adapter's rollouts (0 to 1)"
    named = [f"{group}\n(n = {len(counts[group])})" for group in groups]
    return Bars(named, series, label, "difficulty and task", stacked=True)
