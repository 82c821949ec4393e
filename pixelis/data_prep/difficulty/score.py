"""The score of an example: a value and the components behind it, all in [0, 1]."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pixelis.data.example import Example


@dataclass(frozen=True)
class Score:
    """The difficulty of one example, with the components that explain it.

    Attributes:
        value: in [0, 1]; larger is harder.
        components: name -> part in [0, 1], each growing with what makes the example hard.
    """

    value: float
    components: Mapping[str, float]

    def __post_init__(self) -> None:
        """Assert that all parts are in [0, 1]: other values are a bug of the scorer."""
        for name, part in {"value": self.value, **self.components}.items():
            assert 0 <= part <= 1, f"difficulty {name} must be in [0, 1], got {part}"


Scorer = Callable[[Sequence[Example]], list[Score]]


def log_scaled(count: int, full: int) -> float:
    """Return log(1 + count) / log(1 + full), at most 1."""
    return min(1.0, math.log1p(count) / math.log1p(full))
