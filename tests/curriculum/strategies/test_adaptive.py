import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import CurriculumConfig, CurriculumManager
from pixelis.curriculum.strategies.adaptive import _scale, _update

NAMES = ("simple", "medium", "hard")


def build(**settings):
    settings = {"strategy": "adaptive", "advancement_interval": 2, **settings}
    return CurriculumManager(CurriculumConfig.from_dict(settings))


def run(manager, rounds, step=0):
    for strata in rounds:
        while True:
            manager.step()
            step += 1
            if manager.attempt_due(step):
                break
        manager.attempt(step, dict(zip(NAMES, strata, strict=True)))
    return step


ROUNDS = st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=12)


@given(ROUNDS, st.floats(0, 1 / 3), st.floats(0.01, 50))
def test_the_mix_is_bounded_by_the_floor(rounds, floor, rate):
    manager = build(adaptive={"floor": floor, "rate": rate})
    run(manager, rounds)
    assert sum(manager.mix.values()) == pytest.approx(1)
    assert min(manager.mix.values()) >= floor


@given(ROUNDS, ROUNDS)
def test_resumed_it_goes_on_alike(before, after):
    manager, resumed = build(), build()
    step = run(manager, before)
    resumed.load_state_dict(json.loads(json.dumps(manager.state_dict())))
    run(manager, after, step)
    run(resumed, after, step)
    assert resumed.state_dict() == manager.state_dict()


def test_it_starts_even_and_moves_to_what_is_being_learned():
    manager = build()
    assert list(manager.mix.values()) == pytest.approx([1 / 3] * 3)
    run(manager, [(0.9, 0.2 + 0.05 * i, 0.1) for i in range(8)])
    assert manager.mix["medium"] == max(manager.mix.values()) > 0.45


def test_its_events_say_that_it_does_not_roll_back():
    manager = build()
    run(manager, [(0.9, 0.2, 0.1), (0.9, 0.4, 0.1)])
    assert [event.kind for event in manager.events] == ["start", "advance", "advance"]
    assert {event.reason for event in manager.events} == {"adaptive does not roll back"}
    event = manager.events[-1]
    assert event.delta == pytest.approx(event.perf_after - event.perf_before)
    assert event.from_stage == event.to_stage == "full"


def test_the_update_of_the_paper():
    weights, rewards, rate, rounds = [0.0, -0.5, -1.0], [1.0, -1.0, 0.5], 0.3, 4
    values = [math.exp(w + rate * r) for w, r in zip(weights, rewards, strict=True)]
    paper = [math.log(0.8 * v + 0.2 / 2 * (sum(values) - v)) for v in values]
    updated = _update(weights, rewards, rate, rounds)
    assert [w - updated[0] for w in updated] == pytest.approx([w - paper[0] for w in paper])
    assert _update([0.0], [1.0], 0.3, 1) == [0.0]


def test_rewards_are_scaled_between_the_percentiles():
    seen = [float(value) for value in range(11)]
    assert [_scale(value, seen) for value in (2.0, 5.0, 8.0, 10.0, 0.0)] == [-1, 0, 1, 1, -1]
    assert _scale(0.1, [0.1, 0.1]) == 0.0
