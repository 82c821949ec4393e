"""Did tuning help? The best, the guide's defaults and the uniform mix on seeds nobody has seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pixelis.experiments.estimate import Estimate, estimate


@dataclass(frozen=True)
class Row:
    """One contestant.

    Attributes:
        name: `best`, or a baseline's.
        searched: its performance in the search, on the validation split; None where it had none.
        test: performance on the test split, over fresh seeds.
        gain: of the best over it, seed by seed; None for the best.
    """

    name: str
    searched: float | None
    test: Estimate
    gain: Estimate | None


@dataclass(frozen=True)
class Verdict:
    """All contestants, what follows in a sentence, and who failed on which seed, and why."""

    rows: tuple[Row, ...]
    sentence: str
    failed: Mapping[str, str] = field(default_factory=dict)

    def as_markdown(self) -> str:
        """The table, with intervals, and the sentence."""
        lines = [
            "| settings | in the search | fresh seeds, test split | the best is ahead by |",
            "| --- | --- | --- | --- |",
        ]
        for row in self.rows:
            searched = "" if row.searched is None else f"{row.searched:.4f}"
            gain = "" if row.gain is None else _shown(row.gain, "+.4f")
            lines.append(f"| {row.name} | {searched} | {_shown(row.test, '.4f')} | {gain} |")
        lines += [
            f"| {name} | | failed on {why} | not compared |" for name, why in self.failed.items()
        ]
        return "\n".join([*lines, "", self.sentence])


def judge(
    test: Mapping[str, Sequence[float]],
    searched: Mapping[str, float | None],
    failed: Mapping[str, str] | None = None,
) -> Verdict:
    """Compare the best with each baseline on the same fresh seeds.

    A search takes the maximum of noisy values, so its own value of the winner is too high (the
    winner's curse); fresh seeds and a split that the search never saw are not.

    Args:
        test: name -> performance on the test split by seed, the best first, seeds alike.
        searched: name -> the value that the search had.
        failed: name -> seed and reason, of those that have no mean.
    """
    best, *baselines = test
    rows = [Row(best, searched.get(best), estimate(test[best]), None)]
    for name in baselines:
        gains = [a - b for a, b in zip(test[best], test[name], strict=True)]
        rows.append(Row(name, searched.get(name), estimate(test[name]), estimate(gains)))
    said, failed = _sentence(rows), dict(failed or {})
    said += "".join(f" {name} is not compared: it failed on {why}." for name, why in failed.items())
    return Verdict(tuple(rows), said, failed)


def _sentence(rows: Sequence[Row]) -> str:
    best, *others = rows
    parts = []
    for row in others:
        assert row.gain is not None
        if row.gain.low > 0:
            how = "it is better than"
        elif row.gain.high < 0:
            how = "it is worse than"
        else:
            how = "no difference can be told from"
        parts.append(f"{how} {row.name} ({_shown(row.gain, '+.4f')})")
    said = f"On {best.test.num} fresh seed{'' if best.test.num == 1 else 's'} of {best.name}: "
    said += ("; ".join(parts) or "nothing to compare it with") + "."
    if best.searched is not None and best.searched > best.test.mean:
        said += (
            f" The search's own value of it, {best.searched:.4f}, is the luckiest of many and of "
            "another split."
        )
    return said


def _shown(found: Estimate, form: str) -> str:
    if math.isinf(found.half):
        return f"{found.mean:{form}} (one seed: no interval)"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"
