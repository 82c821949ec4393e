"""Why a trial was stopped early, what that saved, and whether it would have stopped the winner."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


def explain(study: optuna.Study, trial: FrozenTrial, step: int, value: float, pruner: str) -> str:
    """Why a trial ends at a step, in a line: its value there beside that of the others.

    Args:
        study: of the trial.
        trial: that ends.
        step: examples seen.
        value: performance on the last stage's mix there.
        pruner: its name.
    """
    others = [
        other.intermediate_values[step]
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and step in other.intermediate_values
    ]
    if not others:
        return f"{pruner}: {value:.4f} after {step} examples"
    better = sum(other > value for other in others)
    return (
        f"{pruner}: {value:.4f} after {step} examples, where {better} of {len(others)} others "
        f"were better (median {median(others):.4f})"
    )


def saved_share(trials: Sequence[FrozenTrial], examples: int, seeds_per_trial: int = 1) -> float:
    """The share of the examples that pruning saved, of those that all trials would have seen.

    Args:
        trials: of a study; those that are complete or pruned count.
        examples: that one whole training sees.
        seeds_per_trial: trainings of a whole trial; a trial is stopped in its first.
    """
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    trials, whole = [t for t in trials if t.state in ended], examples * seeds_per_trial
    if not trials:
        return 0.0
    seen = [
        max(trial.intermediate_values, default=0) if trial.state == TrialState.PRUNED else whole
        for trial in trials
    ]
    return 1 - sum(seen) / (whole * len(trials))


@dataclass(frozen=True)
class Replay:
    """What pruning would have done to full runs, in the order in which they ran.

    Attributes:
        num: full runs.
        num_pruned: that would have been stopped.
        winner_pruned: whether the best of them is among these; None where there is no run.
    """

    num: int
    num_pruned: int
    winner_pruned: bool | None


def replay(
    trials: Sequence[FrozenTrial], pruner: BasePruner, warmup: int = 0, spared: str | None = None
) -> Replay:
    """Ask a pruner at each intermediate value of full runs whether it would have stopped there.

    What it stops contributes no more than it had reported by then, as in the study. Of trials that
    were pruned in the study the end is not known: they are left out.

    Args:
        trials: of a study with one objective that is maximised; those that are complete are taken.
        pruner: a fresh one.
        warmup: examples that no trial is stopped before.
        spared: a note of the trials that are never stopped, as baselines are.
    """
    whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(study_name="replay", direction="maximize", pruner=pruner)
        stopped = {t.number: _is_stopped(study, t, warmup, spared in t.user_attrs) for t in whole}
    finally:
        optuna.logging.set_verbosity(verbosity)
    best = max(whole, key=lambda trial: trial.values[0], default=None)
    return Replay(len(whole), sum(stopped.values()), None if best is None else stopped[best.number])


def _is_stopped(study: optuna.Study, old: FrozenTrial, warmup: int, is_free: bool) -> bool:
    study.enqueue_trial(old.params)
    trial = study.ask(old.distributions)
    for step, value in sorted(old.intermediate_values.items()):
        trial.report(value, step)
        if not is_free and step >= warmup and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    study.tell(trial, old.value)
    return False
