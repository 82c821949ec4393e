"""Carries records to MLflow: none twice into a run that has a past, and what is refused aside."""

import time
from collections.abc import Sequence
from typing import Literal

from mlflow import MlflowClient

from pixelis.tracking.console import Console, first_line
from pixelis.tracking.delivery import Record, RejectedError, send
from pixelis.tracking.spool import Spool

Outcome = Literal["settled", "split", "passed over"]
# What no other record builds on, and what may be refused where numbers are not.
BULKY = {"file", "text", "png", "table", "model"}
SLOW = 5.0  # seconds after which a failure looks like MLflow being away


class Courier:
    """Delivers the records of one run.

    Args:
        client: Where records go.
        run_id: The run they belong to.
        spool: Whose files have arrived, and where refused records are kept.
        console: Where refusals are told.
        resumed: The run has a past: metrics whose (key, step) it already holds are left out.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, spool: Spool, console: Console, *, resumed: bool
    ) -> None:
        """Ask nothing yet."""
        self.num_refused = 0
        self._client = client
        self._run_id = run_id
        self._spool = spool
        self._console = console
        self._seen = SeenSteps(client, run_id) if resumed else None

    def carry(self, group: Sequence[Record]) -> bool:
        """Deliver records of one kind.

        Returns:
            False when MLflow refuses them as a batch: to be carried one by one.

        Raises:
            Exception: Whatever stores, drivers and transports raise when MLflow is away.
        """
        try:
            fresh = self._seen.unseen(group) if self._seen else group
            if fresh:
                send(self._client, self._run_id, fresh)
        except RejectedError as error:
            if len(group) > 1:
                return False
            self._set_aside(group[0], error)
        else:
            if self._seen:
                self._seen.add(group)
        return True

    def _set_aside(self, record: Record, error: RejectedError) -> None:
        self.num_refused += 1
        self._console.warn(
            f"refused {record.kind}",
            f"MLflow refuses {record.kind} {record.name!r} ({first_line(error)}); it is left out "
            f"and kept in {self._spool.refused}",
        )
        try:
            self._spool.refuse([record])
        except OSError as full:
            self._console.warn("disk", f"what MLflow refuses is not kept ({first_line(full)})")


class Round:
    """One pass over what waits.

    A file that is too large, or a folder that is closed, does not hold up the numbers: it is passed
    over, and what came after it is tried.
    """

    def __init__(self, courier: Courier) -> None:
        """Nothing has failed yet."""
        self.failure: Exception | None = None  # the first that was passed over
        self._courier = courier
        self._failed: set[tuple[str, str]] = set()

    def carry(self, group: Sequence[Record]) -> Outcome:
        """Deliver records of one kind, or pass them over.

        Raises:
            Exception: As it seems, MLflow is away.
        """
        key, began = (group[0].kind, group[0].name), time.monotonic()
        if key in self._failed:  # a later one must not arrive before it
            return "passed over"
        try:
            return "settled" if self._courier.carry(group) else "split"
        # Stores, drivers and transports raise dozens of types.
        except Exception as error:
            if group[0].kind not in BULKY or time.monotonic() - began > SLOW:
                raise
            self.failure = self.failure or error
            self._failed.add(key)
            return "passed over"


class SeenSteps:
    """The steps that a run holds, by key; asked once a key, and kept up by who records."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        """Ask nothing yet."""
        self._client = client
        self._run_id = run_id
        self._steps: dict[str, set[int]] = {}

    def unseen(self, records: Sequence[Record]) -> list[Record]:
        """The metrics among records that the run lacks, each once; all records of another kind."""
        fresh: dict[tuple[str, int], Record] = {}
        for record in records:
            if record.kind != "metric":
                return list(records)
            if record.step not in self._of(record.name):
                fresh.setdefault((record.name, record.step), record)
        return list(fresh.values())

    def add(self, records: Sequence[Record]) -> None:
        """The run has these now."""
        for record in records:
            if record.kind == "metric":
                self._of(record.name).add(record.step)

    def _of(self, key: str) -> set[int]:
        if key not in self._steps:
            history = self._client.get_metric_history(self._run_id, key)
            self._steps[key] = {metric.step for metric in history}
        return self._steps[key]
