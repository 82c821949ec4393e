"""System metrics of a run (processor, memory, disk and GPU use), sent through its recorder.

MLflow's own monitor asks the server before each measurement and stops for good when the server does
not answer.
"""

import logging
from collections.abc import Callable, Mapping

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

PREFIX = "system/"
FIRST_KEY = f"{PREFIX}cpu_utilization_percentage"


class SystemMonitor(SystemMetricsMonitor):
    """MLflow's monitor, which passes its numbers to a function instead of the server.

    Args:
        run_id: Id of the run.
        record: Called with the numbers and the index of the measurement.
        step: Index of the first measurement.
    """

    def __init__(
        self, run_id: str, record: Callable[[Mapping[str, float], int], None], *, step: int
    ) -> None:
        """Set up the monitors of this machine."""
        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
        super().__init__(run_id)  # type: ignore[no-untyped-call]
        self._record = record
        self._logging_step = step

    def monitor(self) -> None:
        """Measure until `finish` is called; this runs in the monitor's thread."""
        while True:
            for _ in range(self.samples_before_logging):
                self.collect_metrics()  # type: ignore[no-untyped-call]
                if self._shutdown_event.wait(self.sampling_interval):
                    return
            metrics = self.aggregate_metrics()  # type: ignore[no-untyped-call]
            self.publish_metrics(metrics)

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        """Pass the numbers to the recorder."""
        self._record({PREFIX + key: value for key, value in metrics.items()}, self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()
