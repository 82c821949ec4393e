"""The records that MLflow has not taken yet, in order; the outbox holds a lock around each call."""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from pixelis.tracking.delivery import BATCH_LIMITS, Record


class Waiting:
    """A queue: its head may be on the way, its end may be in memory alone.

    Attributes:
        off_disk: This many at the end are in memory alone.
        urgent: One of them must not be: its files are on disk.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.off_disk = 0
        self.urgent = False
        self._records: deque[Record] = deque()
        self._passed_over = 0  # this many at the head are left for the next try
        self._in_flight = 0  # this many behind them are being sent
        self._singles = 0  # this many behind them go one by one: their batch was refused

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._records)

    def append(self, records: Sequence[Record], *, on_disk: bool = False) -> None:
        """Queue records."""
        self._records.extend(records)
        if not on_disk:
            self.off_disk += len(records)
            self.urgent |= any(record.files for record in records)

    def remove(self, kind: str, name: str) -> None:
        """Take out the newest record of a kind and name, unless it is being sent."""
        first, sent = self._passed_over, self._passed_over + self._in_flight
        for index in range(len(self._records) - 1, -1, -1):
            is_sent = first <= index < sent
            if (self._records[index].kind, self._records[index].name) == (kind, name):
                if is_sent:
                    return
                self.off_disk -= index >= len(self._records) - self.off_disk
                self._passed_over -= index < first
                self._singles -= first <= index < first + self._singles
                del self._records[index]
                return

    def take(self) -> list[Record]:
        """The longest run of records of one kind that one call can carry, from the oldest on."""
        group: list[Record] = []
        for record in islice(self._records, self._passed_over, None):
            limit = 1 if self._singles else BATCH_LIMITS.get(record.kind, 1)
            if len(group) == limit or (group and record.kind != group[0].kind):
                break
            group.append(record)
        self._in_flight = len(group)
        return group

    def put_back(self) -> None:
        """What was taken has not arrived: begin with the oldest again."""
        if self._passed_over:
            self._singles = 0
        self._in_flight = self._passed_over = 0

    def pass_over(self) -> None:
        """What was taken has not arrived: go on with what came after it."""
        self._passed_over += self._in_flight
        self._in_flight = self._singles = 0

    def split(self) -> None:
        """What was taken is refused as a batch: let it go one by one."""
        self._singles, self._in_flight = self._in_flight, 0

    def drop(self) -> list[Record]:
        """What was taken has arrived: forget it."""
        gone = []
        self._records.rotate(-self._passed_over)
        for _ in range(self._in_flight):
            gone.append(self._records.popleft())
        self._records.rotate(self._passed_over)
        self._singles = max(0, self._singles - len(gone))
        self._in_flight = 0
        self.off_disk = min(self.off_disk, len(self._records) - self._passed_over)
        return gone

    def take_off_disk(self) -> list[Record]:
        """The records that are in memory alone; they count as on disk from now on."""
        fresh = list(islice(self._records, len(self._records) - self.off_disk, None))
        self.off_disk, self.urgent = 0, False
        return fresh

    def put_off_disk(self, count: int) -> None:
        """The disk did not take this many."""
        self.off_disk = min(self.off_disk + count, len(self._records))

    def everything(self) -> list[Record]:
        """All of them; they count as on disk from now on."""
        self.off_disk, self.urgent = 0, False
        return list(self._records)
