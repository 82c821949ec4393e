"""Select generated examples: no two alike, and no answer in too many of a task's examples."""

import math
from collections import Counter

import pyarrow as pa


class Selection:
    """Decides of one example after the other whether it is kept.

    Attributes:
        made: task or sample type -> number of examples kept so far.
    """

    def __init__(self, max_answer_share: float) -> None:
        """Begin without examples.

        Args:
            max_answer_share: largest share of a task's examples with one answer, in (0, 1]. It
                holds after every example, up to rounding, so it holds wherever a task ends.
        """
        self.made: Counter[str] = Counter()
        self._max_answer_share = max_answer_share
        self._answers: Counter[tuple[str, str]] = Counter()
        self._seen: set[str] = set()

    def keep(self, row: pa.RecordBatch) -> bool:
        """Return whether an example, a batch of one row, is kept, and count it then."""
        example_id, task, kind, answer = (
            str(row.column(name)[0].as_py()) for name in ("id", "task", "sample_type", "answer")
        )
        most = math.ceil(self._max_answer_share * (self.made[task] + 1))
        if example_id in self._seen or self._answers[task, answer] >= most:
            return False
        self._seen.add(example_id)
        self.made.update((task, kind))
        self._answers[task, answer] += 1
        return True
