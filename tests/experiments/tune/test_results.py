"""The plots, the effect of pruning, and the verdict."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from pixelis.experiments.tune.results import (
    compute_importances,
    compute_verdict,
    draw_page,
    draw_pictures,
    replay,
    saved_share,
)
from pixelis.experiments.tune.study import BASELINE


def trial(state, value=None, reports=None, **notes):
    return optuna.trial.create_trial(
        state=state, value=value, intermediate_values=reports or {}, user_attrs=notes
    )


@pytest.mark.parametrize("is_flat", [True, False])
def test_trials_or_choices_that_are_alike_are_drawn_without_a_warning(caplog, recwarn, is_flat):
    study = optuna.create_study()
    space = {"x": FloatDistribution(0, 1), "a": CategoricalDistribution([1, 2])}
    for x in (0.1, 0.5, 0.9):
        result = 0.25 if is_flat else x
        params = {"x": x, "a": 1}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=result))
    verbosity = optuna.logging.get_verbosity()
    assert (compute_importances(study) == {}) == is_flat
    assert "contour" in draw_page(study)
    names = [name for name, _ in draw_pictures(study)]
    assert {"history", "slices", "contour"} <= set(names)
    assert ("importances" in names) != is_flat
    assert not [line for line in caplog.messages if "unique value" in line]
    assert not [each for each in recwarn.list if "identical" in str(each.message)]
    assert optuna.logging.get_verbosity() == verbosity


def test_what_was_saved_counts_every_seed_and_no_trial_that_failed(make):
    trials = [trial(TrialState.COMPLETE, 0.5), trial(TrialState.FAIL)]
    trials.append(trial(TrialState.PRUNED, 0.1, {20: 0.1, 40: 0.1}))
    assert saved_share(trials, make()) == pytest.approx(0.3)
    assert saved_share(trials, make(seeds_per_trial=2)) == pytest.approx(1 - 240 / 400)
    assert saved_share(trials[1:2], make()) == 0


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_replay_stops_no_baseline_and_nothing_before_the_warm_up(pruner, make):
    def run(**notes):
        trials = []
        for number in range(12):
            rate = 1 - number / 12
            reports = {step: rate * step / 100 for step in (20, 40, 60, 80)}
            last = notes if number == 11 else {}
            trials.append(trial(TrialState.COMPLETE, rate, reports, **last))
        study = optuna.create_study(direction="maximize")
        study.add_trials(trials)
        return study.trials

    num, num_stopped, winner_stopped = replay(run(), make(prune_after=0.4), pruner)
    assert num == 12 and num_stopped > 3 and not winner_stopped
    spared = replay(run(**{BASELINE: "worst"}), make(prune_after=0.4), pruner)
    assert spared[1] == num_stopped - 1
    assert replay(run(), make(prune_after=0.81), pruner)[1] == 0


def test_a_verdict_says_what_is_better_worse_lucky_failed_or_alone():
    test = {"best": [0.5, 0.6], "low": [0.1, 0.19], "high": [0.9, 0.99], "near": [0.5, 0.61]}
    verdict = compute_verdict(test, {"best": 0.6}, {"guide": "seed 2001 (diverged)"})
    table, text = verdict.as_markdown(), verdict.sentence
    assert "| guide | | failed on seed 2001 (diverged) | not compared |" in table
    assert "| best | 0.6000 | 0.5500 [" in table
    assert text.startswith("On 2 fresh seeds of best: it is better than low (+0.4050 [")
    assert "it is worse than high (-0.39" in text
    assert "no difference can be told from near (-0.0050 [" in text
    assert "The search's own value of it, 0.6000, is the luckiest" in text
    assert text.endswith("guide is not compared: it failed on seed 2001 (diverged).")
    alone = compute_verdict({"best": [0.5]}, {})
    assert alone.sentence == "On 1 fresh seed of best: nothing to compare it with."
    assert "| best |  | 0.5000 (one seed: no interval) |  |" in alone.as_markdown()


@pytest.mark.parametrize("other", [[0.5, 0.6], [0.50001, 0.60001], [0.49, 0.59]])
def test_equal_gains_tell_no_difference_and_0_has_no_minus(other):
    text = compute_verdict({"best": [0.5, 0.6], "other": other}, {}).sentence
    assert "no difference can be told from other (+0.0" in text
    assert "-0.0000" not in text and "(equal seeds: no interval)" in text
