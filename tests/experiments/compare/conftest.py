import pytest

from pixelis.experiments.compare.outcome import Training
from pixelis.figures import FigureSettings, build_history

MIX = {"simple": 1.0, "hard": 0.0}


def _event(step, kind, to, **more):
    return {"step": step, "kind": kind, "from_stage": "easy", "to_stage": to, "mix": MIX} | more


@pytest.fixture
def make():
    """Builds a training that was entered, rolled back at 10, and reached a stage, or did not."""

    def make(name="a", *, full_at=None, params=None, metrics=None, **rules):
        events = [_event(0, "start", "easy")]
        events.append(_event(10, "rollback", "easy", reason="drop", delta=-0.2))
        events += [_event(full_at, "advance", "full")] if full_at else []
        events.append(_event(40, "end", "full" if full_at else "easy"))
        history = {
            "eval/simple/performance": [(0, 0.2), (20, 0.9), (40, 0.8)],
            "eval/hard/performance": [(0, 0.1), (40, 0.3)],
        }
        course = build_history(events, history, max_steps=40, rules=FigureSettings(**rules))
        return Training(name, f"id of {name}", f"#/{name}", params or {}, metrics or {}, course)

    return make
