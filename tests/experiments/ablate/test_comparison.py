import math

import pytest
from scipy.stats import ttest_1samp

from pixelis.experiments.ablate.comparison import (
    arms_markdown,
    arms_rows,
    choose_learning_rate,
    compare_arms,
    estimate,
)

MIX = {"simple": 0.2, "medium": 0.3, "hard": 0.5}
STEPS = {"eval_steps": 10, "max_steps": 30}


@pytest.fixture
def outcomes(make_outcome):
    curve = [(10, 0.2), (20, 0.5), (30, 0.8)]
    slow = [(10, 0.1), (20, 0.3), (30, 0.76)]
    never = [(10, 0.1), (20, 0.2), (30, 0.3)]
    return {
        "uniform": [
            make_outcome("uniform", 0, (0.6, 0.4, 0.2), curve),
            make_outcome("uniform", 1, (0.8, 0.5, 0.2), curve),
        ],
        "staged": [
            make_outcome("staged", 0, (0.9, 0.4, 0.5), slow, seconds=80.0),
            make_outcome("staged", 1, (0.9, 0.6, 0.4), never, seconds=100.0),
        ],
    }


def test_an_interval_is_student_s_t():
    values = [0.2, 0.4, 0.35, 0.5, 0.1]
    found = estimate(values)
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(0.31)


def test_one_value_has_no_interval():
    assert estimate([0.4]).half == math.inf


def test_the_target_is_a_share_of_the_first_arm_s_final_performance(outcomes):
    table = compare_arms(outcomes, MIX, 0.95, **STEPS)
    assert table.target == pytest.approx(0.76)
    uniform, staged = table.rows
    assert (uniform.num_reached, uniform.steps_to_target.mean) == (2, 30)
    # A seed that never gets there counts with the last step, and as one that did not.
    assert (staged.num_reached, staged.steps_to_target.mean) == (1, 30)


def test_a_seed_that_does_not_reach_the_target_is_not_left_out_of_the_mean(outcomes):
    table = compare_arms(outcomes, MIX, 0.3, eval_steps=10, max_steps=100)
    assert table.target == pytest.approx(0.24)
    uniform, staged = table.rows
    assert (uniform.num_reached, uniform.steps_to_target.mean) == (2, 20)
    assert (staged.num_reached, staged.steps_to_target.mean) == (2, 25)
    staged = compare_arms(outcomes, MIX, 0.5, eval_steps=10, max_steps=100).rows[1]
    assert (staged.num_reached, staged.steps_to_target.mean) == (1, (30 + 100) / 2)


def test_the_gain_is_paired_seed_by_seed(outcomes):
    uniform, staged = compare_arms(outcomes, MIX, 0.95, **STEPS).rows
    assert uniform.gain is None
    differences = [0.9 - 0.6, 0.9 - 0.8]
    assert staged.gain["simple"] == estimate(differences)
    assert staged.accuracy["simple"].half == pytest.approx(0)


def test_seeds_that_do_not_match_are_our_own_bug(outcomes):
    outcomes["staged"].reverse()
    with pytest.raises(AssertionError, match="arms share their seeds"):
        compare_arms(outcomes, MIX, 0.95, **STEPS)


def test_rows_are_flat_and_hold_every_interval(outcomes):
    first, second = arms_rows(compare_arms(outcomes, MIX, 0.95, **STEPS))
    assert "gain_all" not in first
    assert (second["arm"], second["seeds"], second["reached_target"]) == ("staged", 2, 1)
    assert second["test_hard"] == pytest.approx(0.45)
    assert second["test_hard_low"] < 0.45 < second["test_hard_high"]
    assert second["gain_hard"] == pytest.approx(0.25)
    assert (second["steps_to_target"], second["steps_to_target_low"]) == (30, 30)
    assert (second["num_tokens"], second["seconds"]) == (1500, 90)


def test_the_table_arms_markdown(outcomes):
    lines = arms_markdown(compare_arms(outcomes, MIX, 0.95, **STEPS)).splitlines()
    assert lines[0] == (
        "| arm | simple % | medium % | hard % | all % | all: gain in points | steps to 0.760 "
        "| k tokens | s a run |"
    )
    assert lines[2].startswith("| uniform | 70.0 ± 127.1 | 45.0 ± 63.5 | 20.0 ± 0.0 |")
    assert lines[2].endswith("|  | 30 ± 0 (2 of 2) | 2 | 60 |")
    assert lines[3].endswith("| ≥ 30 ± 0 (1 of 2) | 2 | 90 |")


def test_where_no_seed_reaches_the_target_the_table_says_so(outcomes):
    assert "| not reached (0 of 2) |" in arms_markdown(compare_arms(outcomes, MIX, 1.2, **STEPS))


def test_the_learning_rate_with_the_best_validation_is_chosen(make_outcome):
    def runs(*finals):
        return [make_outcome("uniform", i, (0, 0, 0), [(9, f)]) for i, f in enumerate(finals)]

    assert choose_learning_rate({1e-3: runs(0.5, 0.6), 2e-3: runs(0.9, 0.3)}, MIX) == 2e-3
    assert choose_learning_rate({1e-3: runs(0.5), 2e-3: runs(0.5)}, MIX) == 1e-3
