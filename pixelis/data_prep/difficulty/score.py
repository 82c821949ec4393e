"""The score of an example: a value and the components behind it, all in [0, 1]."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pixelis.data.example import Example


@dataclass(frozen=True)
class Score:
    """How hard one example is, and why.

    Attributes:
        value: in [0, 1]; larger is harder.
        components: name -> part in [0, 1], each growing with what makes the example hard.
    """

    value: float
    components: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check that all parts are in the unit interval, or the scorer is wrong."""
        for name, part in {"value": self.value, **self.components}.items():
            assert 0 <= part <= 1, f"difficulty {name} must be in [0, 1], got {part}"


Scorer = Callable[[Sequence[Example]], list[Score]]


def log_scaled(count: int, full: int) -> float:
    """Return log(1 + count) / log(1 + full), at most 1: the first few count most."""
    return min(1.0, math.log1p(count) / math.log1p(full))
