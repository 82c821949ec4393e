import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumManager, MixtureSampler
from pixelis.curriculum.strategies.competence import compute_competence, compute_ranks

SCORES = {"simple": [0.1, 0.3, 0.2, 0.2], "medium": [0.5, 0.4, 0.3], "hard": [0.9, 0.7, 0.8]}


def build(scores=SCORES, max_steps=None, **competence):
    settings = {"strategy": "competence", "competence": competence}
    manager = CurriculumManager(CurriculumConfig.from_dict(settings), max_steps)
    manager.bind(scores)
    return manager


def test_the_formula_of_the_paper():
    assert compute_competence(0, 0.01, 90) == pytest.approx(0.01)
    assert compute_competence(90, 0.01, 90) == 1.0
    assert compute_competence(500, 0.01, 90) == 1.0
    expected = math.sqrt(45 * (1 - 0.01**2) / 90 + 0.01**2)
    assert compute_competence(45, 0.01, 90) == pytest.approx(expected)


def test_ranks_are_the_empirical_cdf():
    assert compute_ranks([3.0, 1.0, 2.0, 2.0]) == [1.0, 0.25, 0.75, 0.75]


@given(
    st.integers(1, 120),
    st.fixed_dictionaries(
        {
            name: st.lists(st.floats(0, 1), min_size=1, max_size=8)
            for name in ("simple", "medium", "hard")
        }
    ),
)
def test_a_step_draws_from_the_ranks_up_to_its_competence(step, scores):
    manager = build(scores, steps=100)
    flat = [score for name in scores for score in scores[name]]
    ranks = compute_ranks(flat)
    reached = max(compute_competence(step, 0.01, 100), min(ranks))
    names = [(name, index) for name in scores for index in range(len(scores[name]))]
    expected = {place for place, rank in zip(names, ranks, strict=True) if rank <= reached}
    pool = manager.pool_at(step)
    if pool is None:
        assert len(expected) == len(flat)
    else:
        assert {(name, index) for name in pool for index in pool[name]} == expected
    mix = manager.mix_at(step)
    for name in scores:
        share = sum(place[0] == name for place in expected) / len(expected)
        assert mix[name] == pytest.approx(share)


def test_the_sampler_follows_and_the_draw_is_uniform_over_the_pool():
    manager = build(steps=100)
    sampler = MixtureSampler({name: len(SCORES[name]) for name in SCORES}, manager.mix)
    for step in range(1, 101):
        mix, pool = manager.mix, manager.pool
        sampler.set_pool(pool)
        sampler.set_mix(mix, new_visit=False)
        for name, index in sampler.draw(4):
            assert pool is None or index in pool[name]
        manager.step()
        assert not manager.attempt_due(step) and not manager.needs_losses(step)
    assert manager.steps_to_next_decision(100) is None
    assert manager.pool is None and manager.mix == {"simple": 0.4, "medium": 0.3, "hard": 0.3}


def test_the_start_has_the_first_mix_and_says_that_it_does_not_roll_back():
    start, end = build(steps=100).events[0], build(steps=100).finish(100)
    assert start.mix == {"simple": 1.0, "medium": 0.0, "hard": 0.0}
    assert start.reason == end.reason == "competence does not roll back"


def test_the_default_length_is_90_percent_of_training():
    manager = build(max_steps=100)
    assert manager.pool_at(89) is not None or manager.mix_at(89) == manager.mix_at(90)
    assert manager.pool_at(90) is None


def test_a_length_is_needed():
    with pytest.raises(ConfigError, match="competence.steps must be given where max_steps is unk"):
        build()


def test_a_resumed_training_keeps_its_events():
    manager = build(steps=100)
    for _ in range(7):
        manager.step()
    resumed = build(steps=100)
    resumed.load_state_dict(manager.state_dict())
    assert (resumed.mix, resumed.pool) == (manager.mix, manager.pool)
    resumed.bind(SCORES)
    assert resumed.state_dict() == manager.state_dict()
