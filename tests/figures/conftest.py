"""The history of a training, small enough to check by hand."""

import pytest

from pixelis.figures import FigureSettings, build_history

SIMPLE = {"simple": 1.0, "hard": 0.0}
FULL = {"simple": 0.25, "hard": 0.75}


def _event(step, kind, source, to, mix, **more):
    return {"step": step, "kind": kind, "from_stage": source, "to_stage": to, "mix": mix} | more


@pytest.fixture
def event():
    return _event


@pytest.fixture
def start():
    return _event(0, "start", None, "easy", SIMPLE)


@pytest.fixture
def rollback():
    numbers = {"perf_before": 0.7, "perf_after": 0.4, "delta": -0.3, "rollback_count": 1}
    more = {"reason": "drop", "strata": {"simple": 0.7, "hard": 0.3}, "cooldown_until": 40}
    return _event(20, "rollback", "easy", "easy", SIMPLE, **numbers, **more)


@pytest.fixture
def advance():
    numbers = {"perf_before": 0.8, "perf_after": 0.7, "delta": -0.1}
    return _event(50, "advance", "easy", "full", FULL, **numbers)


@pytest.fixture
def metrics():
    """Metrics under their names in MLflow; the order of names is not that of difficulty."""
    return {
        "eval/hard/performance": [(0, 0.1), (50, 0.4)],
        "eval/simple/performance": [(0, 0.2), (50, 0.8)],
        "eval/hard/loss": [(0, 2.0), (50, 1.0)],
        "eval/simple/loss": [(0, 1.5), (50, 0.5)],
        "eval/mix_performance": [(0, 0.2)],
        "train/loss": [(1, 2.0), (2, 1.0)],
    }


@pytest.fixture
def make_history(start, rollback, advance, metrics):
    """Builds a history from the defaults and what a test changes."""

    def build(events=(start, rollback, advance), metrics=metrics, max_steps=100, **rules):
        settings = FigureSettings(**rules)
        return build_history(list(events), metrics, max_steps=max_steps, rules=settings)

    return build


@pytest.fixture
def drifting(make_history, start, metrics):
    """Without stages: the mix changes at steps, and no event says so."""
    parts = {"simple": [(20, 0.5), (21, 0.25)], "hard": [(20, 0.5), (21, 0.75)]}
    metrics = metrics | {f"curriculum/mix/{name}": parts[name] for name in parts}
    metrics["eval/simple/performance"] = [(step, 0.8) for step in (0, 20, 21, 50)]
    metrics["eval/hard/performance"] = [(step, 0.4) for step in (0, 20, 21, 50)]
    return make_history([start], metrics, max_steps=80, has_stages=False)
