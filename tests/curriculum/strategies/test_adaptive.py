import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumManager
from pixelis.curriculum.strategies.adaptive import scale_reward, select_active, update_weights

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
    assert event.from_stage == event.to_stage == manager.stage == "adaptive"


def test_the_update_of_the_paper():
    weights, rewards, rate, rounds = [0.0, -0.5, -1.0], [1.0, -1.0, 0.5], 0.3, 4
    values = [math.exp(w + rate * r) for w, r in zip(weights, rewards, strict=True)]
    paper = [math.log(0.8 * v + 0.2 / 2 * (sum(values) - v)) for v in values]
    updated = update_weights(weights, rewards, rate, rounds)
    assert [w - updated[0] for w in updated] == pytest.approx([w - paper[0] for w in paper])
    assert update_weights([0.0], [1.0], 0.3, 1) == [0.0]


def test_rewards_are_scaled_between_the_percentiles():
    seen = [float(value) for value in range(11)]
    assert [scale_reward(value, seen) for value in (2.0, 5.0, 8.0, 10.0, 0.0)] == [-1, 0, 1, 1, -1]
    assert scale_reward(0.1, [0.1, 0.1]) == 0.0


# Active selection


def active(**adaptive):
    return build(adaptive={"active_fraction": 0.4, "noise_cut": 0.8, **adaptive})


def losses_of(values):
    return {name: dict(enumerate(row)) for name, row in zip(NAMES, values, strict=True)}


def drive(manager, rounds, step=0):
    """Drive the manager as the trainer does; each round is the strata and the losses."""
    for strata, losses in rounds:
        while not manager.needs_losses(step):
            assert not manager.attempt_due(step), "an attempt before the losses"
            manager.step()
            step += 1
        event = manager.observe_losses(step, losses)
        assert not manager.needs_losses(step)
        if step == 0:
            assert event.kind == "start" and not manager.attempt_due(0)
        else:
            assert event is None and manager.attempt_due(step)
            manager.attempt(step, dict(zip(NAMES, strata, strict=True)))
    return step


ACTIVE_ROUNDS = st.lists(
    st.tuples(
        st.tuples(*[st.floats(0, 1)] * 3),
        st.tuples(*[st.lists(st.floats(0, 9), min_size=1, max_size=9)] * 3).map(losses_of),
    ),
    min_size=1,
    max_size=6,
)
FRACTIONS = st.floats(0, 1, exclude_min=True)
# Few different losses: ties are the rule.
LOSSES = st.dictionaries(st.integers(0, 50), st.sampled_from([0, 0.5, 1, 2, 3.5, 9]), min_size=1)


@given(ACTIVE_ROUNDS, FRACTIONS, FRACTIONS)
def test_within_each_difficulty_the_active_are_in_and_no_pool_is_empty(rounds, fraction, cut):
    manager = active(active_fraction=fraction, noise_cut=cut)
    step = drive(manager, rounds)
    last = rounds[-1][1]
    for name in NAMES:
        expected = select_active(list(last[name].items()), fraction, cut)[0]
        assert manager.pool[name] == expected != []
    assert min(manager.mix.values()) >= 0.1
    assert step == 2 * (len(rounds) - 1)
    assert [event.step for event in manager.events] == list(range(0, step + 1, 2))


@given(ACTIVE_ROUNDS, ACTIVE_ROUNDS)
def test_the_mix_is_the_one_without_active_selection(before, after):
    """The bandit sees the strata alone."""
    chosen, plain = active(), build()
    rounds = [*before, *after]
    drive(chosen, rounds)
    run(plain, [strata for strata, _ in rounds[1:]])
    assert chosen.mix == plain.mix and plain.pool is None


@given(ACTIVE_ROUNDS, ACTIVE_ROUNDS)
def test_resumed_with_active_selection_it_goes_on_alike(before, after):
    manager, resumed = active(), active()
    step = drive(manager, before)
    resumed.load_state_dict(json.loads(json.dumps(manager.state_dict())))
    assert (resumed.pool, resumed.mix) == (manager.pool, manager.mix)
    drive(manager, after, step)
    drive(resumed, after, step)
    assert resumed.state_dict() == manager.state_dict()


@given(ACTIVE_ROUNDS)
def test_resumed_between_losses_and_strata_it_goes_on_alike(rounds):
    manager, resumed = active(), active()
    step = drive(manager, rounds)
    manager.step()
    manager.step()
    manager.observe_losses(step + 2, rounds[0][1])
    resumed.load_state_dict(json.loads(json.dumps(manager.state_dict())))
    assert resumed.attempt_due(step + 2) and not resumed.needs_losses(step + 2)
    strata = dict.fromkeys(NAMES, 0.5)
    assert resumed.attempt(step + 2, strata) == manager.attempt(step + 2, strata)
    assert resumed.state_dict() == manager.state_dict()


def test_active_selection_by_hand():
    manager = active()
    assert manager.steps_to_next_decision(0) == 1
    losses = losses_of([[1, 5, 3, 9, 2]] * 3)
    start = manager.observe_losses(0, losses)
    assert manager.pool == dict.fromkeys(NAMES, [1, 2])
    note = "6 of 15 scored examples are in, 3 are out as noise"
    assert start.reason == f"adaptive does not roll back; {note}"
    assert manager.events == [start] and manager.steps_to_next_decision(0) == 2
    drive(manager, [((0.5, 0.5, 0.5), losses)])
    assert manager.events[-1].reason == f"adaptive does not roll back; {note}"
    assert manager.describe() == "mix simple 33% medium 33% hard 33%"


@given(LOSSES, FRACTIONS, FRACTIONS, st.integers(0, 9))
def test_the_active_are_the_highest_losses_below_the_cut(losses, fraction, cut, shuffle):
    scored = list(losses.items())
    Random(shuffle).shuffle(scored)
    active, num_noisy = select_active(scored, fraction, cut)
    unshuffled = select_active(list(losses.items()), fraction, cut)
    assert (active, num_noisy) == unshuffled, "the order matters"
    # Written out plainly: how many losses lie at or below one's own.
    total = len(losses)
    below = {i: sum(other <= loss for other in losses.values()) for i, loss in losses.items()}
    first = min(at for at in below.values() if at >= round(cut * total, 9))
    clean = [index for index, at in below.items() if at <= first]
    assert num_noisy == total - len(clean)
    wanted = max(1, math.ceil(round(fraction * total, 9)))
    assert len(active) == min(wanted, len(clean)) >= 1
    assert active == sorted(set(active)) and set(active) <= set(clean)
    left = set(clean) - set(active)
    for index in active:
        assert all((losses[index], -index) > (losses[other], -other) for other in left)


def test_the_active_by_hand():
    scored = [(0, 1.0), (1, 4.0), (2, 9.0), (3, 4.0), (4, 0.5)]
    assert select_active(scored, 0.4, 0.8) == ([1, 3], 1)
    assert select_active(scored, 0.2, 0.8)[0] == [1]  # of equal losses the lower index
    assert select_active(scored, 0.2, 1.0)[0] == [2]
    assert select_active(scored, 1.0, 0.4)[0] == [0, 4]
    ten = [(index, float(index)) for index in range(10)]
    assert select_active(ten, 0.1, 0.9)[0] == [8]


def test_active_selection_needs_losses():
    with pytest.raises(ValueError, match="no attempt is due at step 0"):
        active().attempt(0, dict.fromkeys(NAMES, 0.5))
    manager = active()
    before = manager.state_dict()
    text = "the losses must hold an example of difficulty 'hard', got none"
    with pytest.raises(ConfigError, match=text):
        manager.observe_losses(0, {"simple": {0: 1.0}, "medium": {0: 1.0}})
    assert manager.state_dict() == before
    with pytest.raises(ValueError, match="no losses are needed at step 0"):
        build().observe_losses(0, {})
