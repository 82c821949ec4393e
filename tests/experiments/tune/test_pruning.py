"""What pruning saved, and what a replay says of it."""

from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from pixelis.experiments.tune.pruning import replay, saved_share
from pixelis.experiments.tune.study import BASELINE
from pixelis.experiments.tune.verdict import compute_verdict


def trial(state, value=None, reports=None, **notes):
    return optuna.trial.create_trial(
        state=state, value=value, intermediate_values=reports or {}, user_attrs=notes
    )


def test_what_was_saved_counts_every_seed_and_no_trial_that_failed():
    trials = [trial(TrialState.COMPLETE, 0.5), trial(TrialState.FAIL)]
    trials.append(trial(TrialState.PRUNED, 0.1, {20: 0.1, 40: 0.1}))
    assert saved_share(trials, 100) == pytest.approx(0.3)
    assert saved_share(trials, 100, 2) == pytest.approx(1 - 240 / 400)
    assert saved_share(trials[1:2], 100) == 0


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_replay_stops_no_baseline_and_nothing_before_the_warm_up(pruner, settings):
    settings = replace(settings, pruner=pruner, interval=20, warmup=40)
    study = optuna.create_study(direction="maximize")
    for number in range(12):
        rate = 1 - number / 12
        notes = {BASELINE: "worst"} if number == 11 else {}
        reports = {step: rate * step / 100 for step in (20, 40, 60, 80)}
        study.add_trial(trial(TrialState.COMPLETE, rate, reports, **notes))
    for spared, fewer in ((None, 0), (BASELINE, 1)):
        again = replay(study.trials, settings.build_pruner(), settings.warmup, spared)
        if spared is None:
            most = again.num_pruned
            assert most > 3 and again.winner_pruned is False and again.num == 12
        else:
            assert again.num_pruned == most - fewer
    late = replay(study.trials, settings.build_pruner(), warmup=81)
    assert late.num_pruned == 0


def test_hyperband_counts_in_evaluations(settings):
    pruner = replace(settings, pruner="hyperband", interval=5, warmup=40).build_pruner()
    study = optuna.create_study(pruner=pruner)
    asked = study.ask()
    asked.report(1, 5)
    asked.should_prune()
    assert pruner._n_brackets == 3  # 5, 15, 45 of 100


def test_a_baseline_that_failed_is_said():
    verdict = compute_verdict(
        {"best": [0.5, 0.6]}, {"best": 0.6}, {"guide": "seed 2001 (diverged)"}
    )
    assert "| guide | | failed on seed 2001 (diverged) | not compared |" in verdict.as_markdown()
    assert "guide is not compared: it failed on seed 2001 (diverged)." in verdict.sentence
