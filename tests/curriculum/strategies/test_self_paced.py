import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumManager

LOSSES = {
    "simple": {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4},
    "medium": {0: 0.5, 1: 0.6, 2: 0.7},
    "hard": {0: 1.0, 1: 2.0, 2: 4.0},
}
NAMES = tuple(LOSSES)


def build(max_steps=None, **settings):
    settings = {"strategy": "self_paced", "advancement_interval": 5, **settings}
    return CurriculumManager(CurriculumConfig.from_dict(settings), max_steps)


def test_the_first_share_is_let_in_before_training():
    manager = build()
    assert manager.needs_losses(0) and not manager.attempt_due(0)
    event = manager.observe_losses(0, LOSSES)
    assert manager.events == [event] and event.kind == "start" and event.examples_seen == 0
    assert manager.pool == {"simple": [0, 1, 2], "medium": [], "hard": []}
    assert manager.mix == event.mix == {"simple": 1.0, "medium": 0.0, "hard": 0.0}
    assert event.strata is None and event.to_stage == manager.stage == "self_paced"
    assert event.reason == "self_paced does not roll back; 3 of 10 scored examples are in"


def test_lambda_grows_by_its_factor_until_all_are_in():
    manager = build()
    sizes, step = [], 0
    while manager.steps_to_next_decision(step) is not None:
        assert manager.needs_losses(step)
        manager.observe_losses(step, LOSSES)
        pool = manager.pool
        sizes.append(10 if pool is None else sum(len(pool[name]) for name in pool))
        for _ in range(5):
            assert not manager.needs_losses(step)
            manager.step()
            step += 1
    # lambda: .4 (the first loss that is out), .52, .676, .8788, 1.14244, 1.485, 1.93, 2.51, ...
    assert sizes == [3, 5, 6, 7, 8, 8, 8, 9, 9, 10]
    assert manager.pool is None
    assert not manager.needs_losses(step)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                name: st.dictionaries(st.integers(0, 9), st.floats(0, 9), min_size=1, max_size=6)
                for name in NAMES
            }
        ),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.01, 1),
)
def test_no_less_than_the_first_share_is_in(rounds, fraction):
    manager = build(self_paced={"initial_fraction": fraction}, advancement_interval=1)
    for step, losses in enumerate(rounds):
        if not manager.needs_losses(step):
            assert manager.pool is None
            break
        manager.observe_losses(step, losses)
        total, pool = sum(len(losses[name]) for name in NAMES), manager.pool
        if pool is not None:
            count = sum(len(pool[name]) for name in NAMES)
            assert fraction * total - 1e-6 <= count < total
            inside = [losses[name][index] for name in NAMES for index in pool[name]]
            outside = [
                loss
                for name in NAMES
                for index, loss in losses[name].items()
                if index not in pool[name]
            ]
            assert max(inside) < min(outside)
            assert sum(manager.mix.values()) == pytest.approx(1)
        manager.step()


def test_resumed_it_goes_on_alike():
    manager = build()
    manager.observe_losses(0, LOSSES)
    for _ in range(5):
        manager.step()
    resumed = build()
    resumed.load_state_dict(json.loads(json.dumps(manager.state_dict())))
    assert resumed.observe_losses(5, LOSSES) == manager.observe_losses(5, LOSSES)
    assert resumed.pool == manager.pool


def test_nothing_is_decided_at_the_end_of_training():
    manager = build(max_steps=5)
    manager.observe_losses(0, LOSSES)
    for _ in range(5):
        manager.step()
    assert not manager.needs_losses(5)


def test_losses_are_needed():
    manager = build()
    text = "the losses must hold an example of difficulty 'hard', got none"
    with pytest.raises(ConfigError, match=text):
        manager.observe_losses(0, {**LOSSES, "hard": {}})
    with pytest.raises(ValueError, match="no attempt is due at step 0"):
        manager.attempt(0, dict.fromkeys(NAMES, 0.5))
    manager.observe_losses(0, LOSSES)
    with pytest.raises(ValueError, match="no losses are needed at step 0"):
        manager.observe_losses(0, LOSSES)
