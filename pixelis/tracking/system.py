"""Processor, memory, disk and GPU use beside a run's own numbers, by the run's own way to MLflow.

MLflow's monitor asks the server before it measures, and ends for good when there is no answer.
"""

import logging
from collections.abc import Callable, Mapping

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

PREFIX = "system/"
FIRST_KEY = f"{PREFIX}cpu_utilization_percentage"


class SystemMonitor(SystemMetricsMonitor):
    """MLflow's monitor, which hands its numbers over.

    Args:
        run_id: The run.
        record: Takes the numbers and the number of the measurement.
        step: The number of the first measurement.
    """

    def __init__(
        self, run_id: str, record: Callable[[Mapping[str, float], int], None], *, step: int
    ) -> None:
        """Find out what can be measured here."""
        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
        super().__init__(run_id)  # type: ignore[no-untyped-call]
        self._record = record
        self._logging_step = step

    def monitor(self) -> None:
        """Measure until `finish`; the thread's own work."""
        while True:
            for _ in range(self.samples_before_logging):
                self.collect_metrics()  # type: ignore[no-untyped-call]
                if self._shutdown_event.wait(self.sampling_interval):
                    return
            metrics = self.aggregate_metrics()  # type: ignore[no-untyped-call]
            self.publish_metrics(metrics)

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        """Hand the numbers over."""
        self._record({PREFIX + key: value for key, value in metrics.items()}, self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()
