"""From what trainings wrote to the table and the figure of their comparison."""

import math
from dataclasses import replace

import pytest
from scipy.stats import ttest_1samp

from pixelis.errors import CheckpointError
from pixelis.experiments.ablation import (
    Outcome,
    ablation_figure,
    arms_markdown,
    arms_rows,
    choose_learning_rate,
    compare_arms,
    read_outcome,
)
from pixelis.experiments.arms import ARMS
from pixelis.experiments.estimate import estimate

NAMES = ("simple", "medium", "hard")
MIX = {"simple": 0.2, "medium": 0.3, "hard": 0.5}
STEPS = {"eval_steps": 10, "max_steps": 30}
STRATA = [[10, {"simple": 0.2, "medium": 0.4}], [20, {"simple": 0.8, "medium": 0.6}]]
RESULTS = {"test": {"simple": 0.5, "all": 0.5}, "strata": STRATA, "num_tokens": 9, "seconds": 3.5}


def make_outcome(arm, seed, test, curve, seconds=60.0):
    """An outcome whose difficulties all have the value of the (step, value) pairs."""
    test = dict(zip((*NAMES, "all"), [*test, sum(test) / 3], strict=True))
    evaluations = [(step, dict.fromkeys(NAMES, value)) for step, value in curve]
    return Outcome(arm, seed, test, evaluations, 1000 * (seed + 1), seconds)


@pytest.fixture
def outcomes():
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


def test_an_interval_is_student_s_t_and_one_value_has_none():
    values = [0.2, 0.4, 0.35, 0.5, 0.1]
    result = estimate(values)
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.mean == pytest.approx(0.31)
    assert estimate([0.4]).half == math.inf


@pytest.mark.parametrize("values", [[0.4, 0.4], [0.0] * 5, [0.3 - 0.2, 0.4 - 0.3, 0.1]])
def test_equal_values_have_no_interval(values):
    # Of 0.3 - 0.2 and 0.4 - 0.3 only the rounding differs.
    result = estimate(values)
    assert (result.low, result.high, result.num) == (-math.inf, math.inf, len(values))
    assert f"{result:.1f}" == f"{values[0]:.1f} (equal seeds: no interval)"


@pytest.mark.parametrize(
    ("share", "max_steps", "target", "uniform", "staged"),
    [
        # A seed that never reaches the target counts with the last step, and as one that did not.
        (0.95, 30, 0.76, (2, 30), (1, 30)),
        (0.3, 100, 0.24, (2, 20), (2, 25)),
        (0.5, 100, 0.4, (2, 20), (1, (30 + 100) / 2)),
    ],
)
def test_steps_to_a_share_of_the_first_arms_final_performance(
    outcomes, share, max_steps, target, uniform, staged
):
    table = compare_arms(outcomes, MIX, share, eval_steps=10, max_steps=max_steps)
    assert table.target == pytest.approx(target)
    steps = [(row.num_reached, row.steps_to_target.mean) for row in table.rows]
    assert steps == [uniform, staged]


def test_the_gain_is_paired_seed_by_seed(outcomes):
    uniform, staged = compare_arms(outcomes, MIX, 0.95, **STEPS).rows
    assert uniform.gain == {}
    assert staged.gain["simple"] == estimate([0.9 - 0.6, 0.9 - 0.8])
    assert staged.accuracy["simple"].half == math.inf  # .9 twice
    outcomes["staged"].reverse()
    with pytest.raises(AssertionError, match="arms share their seeds"):
        compare_arms(outcomes, MIX, 0.95, **STEPS)


def test_rows_and_table(outcomes):
    table = compare_arms(outcomes, MIX, 0.95, **STEPS)
    first, second = arms_rows(table)
    assert "gain_all" not in first
    assert (second["arm"], second["seeds"], second["reached_target"]) == ("staged", 2, 1)
    assert second["test_hard"] == pytest.approx(0.45)
    assert second["test_hard_low"] < 0.45 < second["test_hard_high"]
    assert second["gain_hard"] == pytest.approx(0.25)
    assert (second["steps_to_target"], second["steps_to_target_low"]) == (30, None)
    assert (second["num_tokens"], second["seconds"]) == (1500, 90)
    lines = arms_markdown(table).splitlines()
    assert lines[0] == (
        "| arm | simple % | medium % | hard % | all % | all: gain in points | steps to 0.760 "
        "| k tokens | s a run |"
    )
    assert lines[2].startswith("| uniform | 70.0 ± 127.1 | 45.0 ± 63.5 | 20.0 |")
    assert lines[2].endswith("|  | 30 (2 of 2) | 2 | 60 |")
    assert lines[3].endswith("| ≥ 30 (1 of 2) | 2 | 90 |")
    assert "| not reached (0 of 2) |" in arms_markdown(compare_arms(outcomes, MIX, 1.2, **STEPS))


def test_the_base_is_a_row_and_the_gain_over_it_is_paired_by_seed(outcomes):
    base = [{"simple": 0.5, "medium": 0.4, "hard": 0.3, "all": 0.4}] * 2
    base[1] = base[1] | {"simple": 0.7, "all": 0.467}
    table = compare_arms(outcomes, MIX, 0.95, **STEPS, base=base)
    assert table.base.accuracy["simple"] == estimate([0.5, 0.7])
    assert table.base.gain["simple"] == estimate([0.5 - 0.6, 0.7 - 0.8])
    uniform, staged = table.rows
    assert uniform.over_base["simple"] == estimate([0.6 - 0.5, 0.8 - 0.7])
    assert staged.over_base["medium"] == estimate([0.0, 0.6 - 0.4])
    first, *others = arms_rows(table)
    assert (first["arm"], first["num_tokens"]) == ("base", 0)
    assert not {"validation", "reached_target", "over_base_all", "steps_to_target"} & set(first)
    assert first["test_simple"] == pytest.approx(0.6) and first["gain_simple"] < 0
    assert [row["arm"] for row in others] == ["uniform", "staged"]
    assert others[1]["over_base_medium"] == pytest.approx(0.1)
    lines = arms_markdown(table).splitlines()
    assert " | all: gain in points | all: over base | steps to 0.760 | " in lines[0]
    assert lines[2].startswith("| base | 60.0 ± 127.1 | ")
    assert lines[2].endswith(" |  | not trained | 0 |  |")
    assert lines[3].startswith("| uniform | ") and lines[3].count("|") == lines[2].count("|")
    left, right = ablation_figure(table, metric="likelihood", steps=30).axes
    assert left.get_legend_handles_labels()[1] == ["base", "uniform", "staged"]
    assert len([line for line in right.lines if len(line.get_xdata()) == 3]) == 2


def test_one_seed_has_no_interval(outcomes):
    one = {arm: runs[:1] for arm, runs in outcomes.items()}
    base = [dict.fromkeys((*NAMES, "all"), 0.1)]
    table = compare_arms(one, MIX, 0.95, **STEPS, base=base)
    lines = arms_markdown(table).splitlines()
    assert lines[3].startswith("| uniform | 60.0 | 40.0 | 20.0 | 40.0 |  | +30.0 | 30 (1 of 1) |")
    assert table.verdict == "one seed has no interval: it cannot tell whether an arm beats the base"
    left = ablation_figure(table, metric="likelihood", steps=30).axes[0]
    assert left.get_ylabel() == "test answer accuracy (0 to 1); one seed"
    assert left.get_ylim()[1] < 1.2


@pytest.mark.parametrize(
    ("base", "verdict"),
    [
        # The arms have .4 and .5, and .6 and .633.
        ([], ""),
        ([0.39, 0.42], "1 of 2 arms beat the base: staged"),
        ([0.1, 0.167], "2 of 2 arms beat the base: uniform, staged"),
        ([0.39, 0.2], "no arm beats the base: this budget cannot tell arms apart"),
        ([0.7, 0.7], "no arm beats the base: this budget cannot tell arms apart"),
    ],
)
def test_an_arm_beats_the_base_where_the_interval_of_its_gain_is_above_0(outcomes, base, verdict):
    tests = [dict.fromkeys((*NAMES, "all"), value) for value in base]
    assert compare_arms(outcomes, MIX, 0.95, **STEPS, base=tests).verdict == verdict


def test_equal_gains_of_two_seeds_do_not_beat_the_base(outcomes):
    # Each arm is better than the base by the same on both seeds, perhaps by one example.
    tests = [
        {name: value - 0.01 for name, value in run.test.items()} for run in outcomes["uniform"]
    ]
    table = compare_arms({"uniform": outcomes["uniform"]}, MIX, 0.95, **STEPS, base=tests)
    assert table.verdict == "no arm beats the base: this budget cannot tell arms apart"


@pytest.mark.parametrize("difference", [-0.0004, -1e-12, -0.0])
def test_a_gain_that_rounds_to_0_has_no_minus(outcomes, difference):
    lower = [
        replace(run, test={name: value + difference for name, value in run.test.items()})
        for run in outcomes["uniform"]
    ]
    table = compare_arms({"uniform": outcomes["uniform"], "lower": lower}, MIX, 0.95, **STEPS)
    assert " | +0.0 | " in arms_markdown(table).splitlines()[3]


def test_arms_can_be_told_apart_where_a_gain_has_an_interval_without_0(outcomes):
    tests = [dict.fromkeys((*NAMES, "all"), 0.7)] * 2
    lower = [
        replace(run, test={name: value - 0.1 - 0.01 * run.seed for name, value in run.test.items()})
        for run in outcomes["uniform"]
    ]
    for names in (("uniform", "lower"), ("lower", "uniform")):
        arms = {"uniform": outcomes["uniform"], "lower": lower}
        table = compare_arms({name: arms[name] for name in names}, MIX, 0.95, **STEPS, base=tests)
        assert table.verdict == "no arm beats the base"


def test_the_learning_rate_with_the_best_validation_is_chosen():
    def runs(*finals):
        return [make_outcome("uniform", i, (0, 0, 0), [(9, f)]) for i, f in enumerate(finals)]

    assert choose_learning_rate({1e-3: runs(0.5, 0.6), 2e-3: runs(0.9, 0.3)}, MIX) == 2e-3
    assert choose_learning_rate({1e-3: runs(0.5), 2e-3: runs(0.5)}, MIX) == 1e-3


def read(results):
    return read_outcome("staged", 3, {"results": results}, "x/finished.json")


def test_an_outcome_is_what_the_training_wrote():
    outcome, mix = read(RESULTS), {"simple": 0.25, "medium": 0.75, "hard": 0.0}
    assert (outcome.arm, outcome.seed) == ("staged", 3)
    assert (outcome.test, outcome.num_tokens) == ({"simple": 0.5, "all": 0.5}, 9)
    assert outcome.final_performance(mix) == pytest.approx(0.25 * 0.8 + 0.75 * 0.6)
    # .25 * .2 + .75 * .4 = .35 after step 10, .65 after step 20.
    for target, step in ((0.1, 10), (0.35, 10), (0.36, 20), (0.66, None)):
        assert outcome.steps_to(target, mix, 10) == step
    # Evaluations that only one arm has do not count; the last step does.
    best = {"simple": 1.0, "medium": 1.0}
    outcome = read(RESULTS | {"strata": [STRATA[0], [14, best], STRATA[1], [25, best]]})
    assert list(outcome.curve(mix, 10)) == [10, 20, 25]
    assert outcome.steps_to(0.9, mix, 10) == 25


@pytest.mark.parametrize(
    "results", [None, {}, {"test": {}}, RESULTS | {"test": 1}, RESULTS | {"strata": []}]
)
def test_a_file_without_results_is_named(results):
    with pytest.raises(CheckpointError, match="finished.json holds no results"):
        read(results)


def test_the_figure_has_every_arm_in_its_colour_and_says_what_it_shows():
    by_arm = {
        arm: [
            make_outcome(arm, seed, (0.5, 0.4, 0.3), [(10, 0.2 + i / 20), (20, 0.6 + i / 50)])
            for seed in range(3)
        ]
        for i, arm in enumerate(ARMS)
    }
    table = compare_arms(by_arm, MIX, 0.95, eval_steps=10, max_steps=20)
    left, right = ablation_figure(table, metric="answer_accuracy", steps=20).axes
    handles, labels = left.get_legend_handles_labels()
    assert labels == list(ARMS)
    colours = [handle[0].get_color() for handle in handles]
    assert len(set(colours)) == len(colours)
    curves = [line for line in right.lines if len(line.get_xdata()) == 2][: len(labels)]
    assert [line.get_color() for line in curves] == colours
    assert list(curves[0].get_ydata()) == pytest.approx([0.2, 0.6])
    assert left.get_ylabel() == "test answer accuracy (0 to 1); mean of 3 seeds, 95 % interval"
    assert [tick.get_text() for tick in left.get_xticklabels()] == [*NAMES, "all"]
    assert (right.get_xlabel(), right.get_xlim()) == ("optimiser step", (0, 20))
    assert "answer accuracy" in right.get_ylabel()
    assert f"target {table.target:.3f}" in [text.get_text() for text in right.texts]
