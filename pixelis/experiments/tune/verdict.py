"""The verdict of a search: the best settings against the baselines, on fresh seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pixelis.experiments.estimate import Estimate, estimate


@dataclass(frozen=True)
class VerdictRow:
    """The results of one contestant.

    Attributes:
        name: `best`, or the name of a baseline.
        searched: Performance on the validation split in the search, or None.
        test: Performance on the test split, over fresh seeds.
        gain: Gain of the best over this one, seed by seed; None for the best.
    """

    name: str
    searched: float | None
    test: Estimate
    gain: Estimate | None


@dataclass(frozen=True)
class Verdict:
    """The comparison on fresh seeds.

    Attributes:
        rows: The contestants, the best first.
        sentence: The conclusion.
        failed: Name -> seed and reason, for contestants without a mean.
    """

    rows: tuple[VerdictRow, ...]
    sentence: str
    failed: Mapping[str, str] = field(default_factory=dict)

    def as_markdown(self) -> str:
        """Return the table, with intervals, and the sentence."""
        lines = [
            "| settings | in the search | fresh seeds, test split | the best is ahead by |",
            "| --- | --- | --- | --- |",
        ]
        for row in self.rows:
            searched = "" if row.searched is None else f"{row.searched:.4f}"
            gain = "" if row.gain is None else _format(row.gain, "+.4f")
            lines.append(f"| {row.name} | {searched} | {_format(row.test, '.4f')} | {gain} |")
        lines += [
            f"| {name} | | failed on {reason} | not compared |"
            for name, reason in self.failed.items()
        ]
        return "\n".join([*lines, "", self.sentence])


def compute_verdict(
    test: Mapping[str, Sequence[float]],
    searched: Mapping[str, float | None],
    failed: Mapping[str, str] | None = None,
) -> Verdict:
    """Compare the best with each baseline on the same fresh seeds.

    A search takes the maximum of noisy values, so its own value of the winner is too high (the
    winner's curse); fresh seeds on a split that the search never saw do not share that bias.

    Args:
        test: Name -> performance on the test split by seed, the best first; all have equal seeds.
        searched: Name -> its value in the search.
        failed: Name -> seed and reason, for contestants without a mean.
    """
    best, *baselines = test
    rows = [VerdictRow(best, searched.get(best), estimate(test[best]), None)]
    for name in baselines:
        gains = [a - b for a, b in zip(test[best], test[name], strict=True)]
        rows.append(VerdictRow(name, searched.get(name), estimate(test[name]), estimate(gains)))
    failed = dict(failed or {})
    sentence = _sentence(rows) + "".join(
        f" {name} is not compared: it failed on {reason}." for name, reason in failed.items()
    )
    return Verdict(tuple(rows), sentence, failed)


def _sentence(rows: Sequence[VerdictRow]) -> str:
    best, *baselines = rows
    parts = []
    for row in baselines:
        assert row.gain is not None
        if row.gain.low > 0:
            relation = "it is better than"
        elif row.gain.high < 0:
            relation = "it is worse than"
        else:
            relation = "no difference can be told from"
        parts.append(f"{relation} {row.name} ({_format(row.gain, '+.4f')})")
    seeds = f"{best.test.num} fresh seed{'' if best.test.num == 1 else 's'}"
    sentence = f"On {seeds} of {best.name}: {'; '.join(parts) or 'nothing to compare it with'}."
    if best.searched is not None and best.searched > best.test.mean:
        sentence += (
            f" The search's own value of it, {best.searched:.4f}, is the luckiest of many and of "
            "another split."
        )
    return sentence


def _format(value: Estimate, spec: str) -> str:
    if math.isinf(value.half):
        return f"{value.mean:{spec}} (one seed: no interval)"
    return f"{value.mean:{spec}} [{value.low:{spec}}, {value.high:{spec}}]"
