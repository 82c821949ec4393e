"""The queue between a training and MLflow: in order, in batches, nothing lost in an outage."""

import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from pixelis.tracking.delivery import BATCH_LIMITS, Record, RejectedError, send

MAX_WAITING = 500  # records that start a delivery ...
MAX_AGE = 5.0  # ... and the age in seconds of the oldest one that does
PAUSE = 30.0  # seconds between tries while MLflow is away: each may hold the training up


class Outbox:
    """Keeps records until MLflow has taken them; never raises because MLflow does.

    Args:
        client: Where records go.
        run_id: The run they belong to.
        resumed: The run has a past: metrics whose (key, step) it already holds are left out.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, resumed: bool = False) -> None:
        """Start with nothing waiting."""
        self.client = client
        self.run_id = run_id
        self.rejected: list[Record] = []
        self._waiting: deque[Record] = deque()
        self._oldest = 0.0
        self._retry_at = 0.0
        self._logged_steps: dict[str, set[int]] | None = {} if resumed else None
        self._singles = 0  # this many from the head go one by one: their batch was refused
        self._warned: set[str] = set()

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def add(self, records: Sequence[Record]) -> None:
        """Queue records; deliver when many wait or one has waited long."""
        if not self._waiting:
            self._oldest = time.monotonic()
        self._waiting.extend(records)
        if len(self._waiting) > MAX_WAITING or time.monotonic() - self._oldest > MAX_AGE:
            self.deliver()

    def replace(self, record: Record) -> None:
        """Queue a record instead of the one of the same kind and name that still waits, if any."""
        name = (record.kind, record.name)
        self._waiting = deque(r for r in self._waiting if (r.kind, r.name) != name)
        self.add([record])

    def deliver(self, *, now: bool = False) -> bool:
        """Send what waits, oldest first, until MLflow cannot be reached.

        Args:
            now: Try even though MLflow could not be reached a moment ago.

        Returns:
            Whether nothing waits any more.
        """
        if not now and time.monotonic() < self._retry_at:
            return False
        while self._waiting:
            group = self._head()
            try:
                self._send(group)
            except RejectedError as error:
                self._reject(group, error)
            # Stores, drivers and transports raise dozens of types, and none may stop a training.
            except Exception as error:
                self._retry_at = time.monotonic() + PAUSE
                self.warn(
                    f"unreachable {type(error).__name__}",
                    f"MLflow did not take a record ({_first_line(error)}); the training goes on, "
                    "records wait and are sent again",
                )
                return False
            else:
                self._drop(len(group))
        if self._retry_at:
            self._retry_at = 0.0
            print("pixelis: MLflow answers again; what waited is delivered", file=sys.stderr)
        return True

    def warn(self, kind: str, message: str) -> None:
        """Say something on stderr, once a kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            print(f"pixelis: warning: {message}", file=sys.stderr)

    def spool(self, folder: Path, extra: Sequence[Record] = ()) -> Path | None:
        """Write what MLflow has not taken to a file, one JSON record a line.

        Args:
            folder: Where the file goes; made if it is not there.
            extra: Records to append.

        Returns:
            The file, or None when there was nothing to write.
        """
        records = [*self.rejected, *self._waiting, *extra]
        if not records:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"pixelis-undelivered-{self.run_id}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.writelines(record.to_json() + "\n" for record in records)
        return path

    def _head(self) -> list[Record]:
        """The longest run of records of one kind at the head that one call can carry."""
        kind = self._waiting[0].kind
        limit = 1 if self._singles else BATCH_LIMITS.get(kind, 1)
        group: list[Record] = []
        for record in self._waiting:
            if record.kind != kind or len(group) == limit:
                break
            group.append(record)
        return group

    def _send(self, group: list[Record]) -> None:
        if group[0].kind == "metric" and self._logged_steps is not None:
            group = [r for r in group if r.step not in self._steps(r.name, self._logged_steps)]
        if group:
            send(self.client, self.run_id, group)

    def _steps(self, key: str, logged: dict[str, set[int]]) -> set[int]:
        """The steps that the resumed run already has for a key; asked once."""
        if key not in logged:
            history = self.client.get_metric_history(self.run_id, key)
            logged[key] = {metric.step for metric in history}
        return logged[key]

    def _reject(self, group: list[Record], error: Exception) -> None:
        """Set aside what MLflow refuses; send a batch one by one to find out which it is."""
        if len(group) > 1:
            self._singles = len(group)
        else:
            self._set_aside(group[0], error)
            self._drop(1)

    def _set_aside(self, record: Record, error: Exception) -> None:
        self.rejected.append(record)
        self.warn(
            f"refused {record.kind}",
            f"MLflow refuses {record.kind} {record.name!r} ({_first_line(error)}); it is left out",
        )

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self._singles = max(0, self._singles - count)
        self._oldest = time.monotonic()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
