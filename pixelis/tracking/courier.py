"""Carries records to MLflow: none twice into a run that has a past, and what is refused aside."""

from collections.abc import Sequence

from mlflow import MlflowClient

from pixelis.tracking.console import Console, first_line
from pixelis.tracking.delivery import Record, RejectedError, send
from pixelis.tracking.spool import Spool


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
