"""One record of a run for MLflow, in plain JSON."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

# Number of records that MLflow takes in one call; one for every other kind.
BATCH_LIMITS: dict[str, int] = {"metric": 1000, "param": 100, "tag": 100}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a run's journal.

    Attributes:
        kind: One of the kinds of `send.Sender`.
        name: The key of a metric, parameter or tag; otherwise a path in the run's artifacts.
        value: A number, a text or plain JSON; for files and adapters, with their original path.
        step: The optimiser step of a metric.
        timestamp: Time of recording, not of sending, in milliseconds since 1970: MLflow drops a
            metric that comes twice with the same timestamp, so sending it again is harmless.
        files: Name of the folder among the journal's kept files with the record's content. It is
            removed once MLflow has the content.
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
    """A refusal of a record by MLflow that trying again would not change."""


def parse_record(line: bytes) -> Record | None:
    """Return the record of a line; None for a line that a kill has cut off or that is damaged."""
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError):
        return None


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)
