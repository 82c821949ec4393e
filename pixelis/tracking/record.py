"""What a run records: one thing for MLflow, plain enough to stand on disk as a line of JSON."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

# How many records of a kind MLflow takes in one call; of every other kind it takes one.
BATCH_LIMITS: dict[str, int] = {"metric": 1000, "param": 100, "tag": 100}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a run's journal.

    Attributes:
        kind: What it is: a key of `send.SENDERS`.
        name: The key of a metric, parameter or tag; the path inside the run's artifacts otherwise.
        value: A number, a text or plain JSON; for files and adapters where they were.
        step: The optimiser step of a metric.
        timestamp: Milliseconds since 1970, when it was recorded, not sent: MLflow drops a metric
            that comes twice with the same timestamp, so sending again is harmless.
        files: The folder among the journal's kept files that holds what the record is about. The
            folder goes when MLflow has it.
    """

    kind: str
    name: str
    value: Any
    step: int = 0
    timestamp: int = 0
    files: str = ""

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), default=str)


class RejectedError(Exception):
    """MLflow refuses a record, and would again if nothing else changed."""


def parse_record(line: bytes) -> Record | None:
    """Return the record of a line; None of one that a kill has torn, or that is no record."""
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError):
        return None


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)
