"""The machine's numbers, by the run's own way to MLflow."""

import queue

from pixelis.tracking.system import FIRST_KEY, SystemMonitor


def test_it_measures_until_it_is_told_to_stop(monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    told = queue.Queue()
    monitor = SystemMonitor("r1", lambda values, step: told.put((dict(values), step)), step=5)
    monitor.start()
    measured = [told.get(timeout=60) for _ in range(2)]
    monitor.finish()
    assert [step for _, step in measured] == [5, 6]
    for values, _ in measured:
        assert all(key.startswith("system/") for key in values)
        assert 0 <= values[FIRST_KEY]


def test_it_stops_at_once_however_long_it_sleeps(monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "3600")
    monitor = SystemMonitor("r1", lambda values, step: None, step=0)
    monitor.start()
    monitor.finish()
