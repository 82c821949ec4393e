import pytest

from pixelis.errors import CheckpointError
from pixelis.experiments.ablate.comparison import read_outcome

MIX = {"simple": 0.25, "medium": 0.75, "hard": 0.0}
FINISHED = {
    "step": 20,
    "run_id": "abc",
    "identity": {},
    "results": {
        "test": {"simple": 0.5, "all": 0.5},
        "strata": [[10, {"simple": 0.2, "medium": 0.4}], [20, {"simple": 0.8, "medium": 0.6}]],
        "num_tokens": 1234,
        "seconds": 3.5,
    },
}


def test_an_outcome_is_what_the_training_wrote():
    outcome = read_outcome("staged", 3, FINISHED, "here")
    assert (outcome.arm, outcome.seed, outcome.run_id) == ("staged", 3, "abc")
    assert (outcome.num_tokens, outcome.seconds) == (1234, 3.5)
    assert outcome.test == {"simple": 0.5, "all": 0.5}


def test_performance_is_the_mix_of_the_last_strata():
    outcome = read_outcome("staged", 3, FINISHED, "here")
    assert outcome.final_performance(MIX) == pytest.approx(0.25 * 0.8 + 0.75 * 0.6)


@pytest.mark.parametrize(("target", "step"), [(0.1, 10), (0.35, 10), (0.36, 20), (0.66, None)])
def test_steps_to_a_target_are_counted_to_the_first_evaluation_that_reaches_it(target, step):
    # .25 * .2 + .75 * .4 = .35 after step 10, .65 after step 20.
    assert read_outcome("staged", 3, FINISHED, "here").steps_to(target, MIX, 10) == step


def test_evaluations_that_only_one_arm_has_do_not_count():
    strata = {"simple": 1.0, "medium": 1.0}
    results = FINISHED["results"]
    more = [results["strata"][0], [14, strata], results["strata"][1], [25, strata]]
    outcome = read_outcome("a", 0, {**FINISHED, "results": results | {"strata": more}}, "here")
    # After 14 steps a trial ended; 25 is the last step.
    assert [step for step, _ in outcome.curve(MIX, 10)] == [10, 20, 25]
    assert outcome.steps_to(0.9, MIX, 10) == 25


@pytest.mark.parametrize(
    "results",
    [
        {"test": {}, "strata": [], "num_tokens": 0, "seconds": 0},
        None,
        {},
        {"test": {}},
        {"test": 1, "strata": [[1, {}]], "num_tokens": 0, "seconds": 0},
    ],
)
def test_a_file_without_results_is_named(results):
    finished = {**FINISHED, "results": results}
    with pytest.raises(CheckpointError, match="finished.json holds no results"):
        read_outcome("staged", 3, finished, "x/finished.json")
