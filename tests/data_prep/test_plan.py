"""The plan of photographs; that of drawn scenes is tested with the data it makes."""

from collections import Counter

import pytest

from pixelis.data_prep.plan import plan_photographs

TASKS = ("object_counting", "spatial_reasoning", "text_extraction", "attribute_recognition")
RATIOS = {
    "self_correction": 0.1,
    "outcome_negative": 0.0,
    "trap_perceptual": 0.05,
    "trap_logical": 0.05,
}


@pytest.mark.parametrize("num_samples", [1, 2, 30, 399])
def test_a_smaller_number_is_the_beginning_of_a_larger_one(num_samples):
    for seed in range(3):
        whole = plan_photographs(400, seed, TASKS, RATIOS)
        assert plan_photographs(num_samples, seed, TASKS, RATIOS) == whole[:num_samples]
    assert [plan.index for plan in whole] == list(range(400))


@pytest.mark.parametrize("num_samples", [20, 100, 400])
@pytest.mark.parametrize("seed", range(5))
def test_types_have_their_shares_in_every_task(num_samples, seed):
    plans = plan_photographs(num_samples, seed, TASKS, RATIOS)
    kinds = Counter(plan.sample_type for plan in plans)
    for kind, ratio in RATIOS.items():
        assert abs(kinds[kind] - ratio * num_samples) <= 2
    assert kinds["outcome_negative"] == 0
    assert set(Counter(plan.task for plan in plans).values()) == {num_samples // len(TASKS)}
    if num_samples == 400:
        assert {plan.task for plan in plans if plan.sample_type == "trap_logical"} == set(TASKS)


def test_without_other_types_all_are_positive():
    plans = plan_photographs(50, 0, TASKS[:1], dict.fromkeys(RATIOS, 0.0))
    assert {plan.sample_type for plan in plans} == {"positive"}
