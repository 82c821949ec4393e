"""What a training draws when nothing fails."""

import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.planning.stages import drawn_in_all, plan_course


def course(max_steps=100, scores=None, **changed):
    config = CurriculumConfig.from_dict({"advancement_interval": 20} | changed)
    return plan_course(config, max_steps=max_steps, examples_per_step=10, scores=scores)


def test_staged_advances_at_every_interval():
    found = course()
    assert [(s.name, s.first_step, s.steps) for s in found] == [
        ("simple", 1, 20),
        ("balanced", 21, 20),
        ("full", 41, 60),
    ]
    assert found[1].examples == pytest.approx({"simple": 80, "medium": 80, "hard": 40})
    assert sum(drawn_in_all(found).values()) == pytest.approx(1000)


def test_a_trial_belongs_to_the_stage_that_it_tries():
    found = course(trial_steps=5)
    assert [(s.name, s.first_step) for s in found][:2] == [("simple", 1), ("balanced", 21)]


def test_a_schedule_is_exact_and_no_curriculum_is_one_mix():
    found = course(strategy="schedule", schedule={"steps": [10, 70]})
    assert [(s.first_step, s.steps) for s in found] == [(1, 10), (11, 60), (71, 30)]
    (only,) = course(enabled=False)
    assert only.examples == pytest.approx({"simple": 200, "medium": 300, "hard": 500})


def test_competence_needs_the_scores():
    scores = {"simple": [0.1, 0.2], "medium": [0.4, 0.5], "hard": [0.8, 0.9]}
    assert course(strategy="competence") is None
    found = course(strategy="competence", scores=scores)
    total = drawn_in_all(found)
    assert total["simple"] > total["hard"] > 0
    assert sum(total.values()) == pytest.approx(1000)


@pytest.mark.parametrize("strategy", ["self_paced", "adaptive"])
def test_what_losses_decide_is_not_known_before(strategy):
    assert course(strategy=strategy, scores={"simple": [0.1]}) is None
