"""Why a trial was stopped early, what that saved, and whether it would have stopped the winner."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


def explain(
    trials: Sequence[FrozenTrial], number: int, step: int, value: float, pruner: str
) -> str:
    """Return why a trial ends at a step: its value there beside the others'.

    Args:
        trials: Of the study.
        number: Of the trial that ends.
        step: Examples seen.
        value: Performance on the last stage's mix there.
        pruner: Its name.
    """
    others = [
        trial.intermediate_values[step]
        for trial in trials
        if trial.number != number and step in trial.intermediate_values
    ]
    reason = f"{pruner}: {value:.4f} after {step} examples"
    if not others:
        return reason
    num_better = sum(other > value for other in others)
    return (
        f"{reason}, where {num_better} of {len(others)} others were better "
        f"(median {median(others):.4f})"
    )


def saved_share(trials: Sequence[FrozenTrial], examples: int, seeds_per_trial: int = 1) -> float:
    """Return the share of the examples that pruning saved, of those of all whole trials.

    Args:
        trials: Of a study; complete and pruned ones count.
        examples: Of one whole training.
        seeds_per_trial: Trainings of a whole trial; a trial is stopped in its first.
    """
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if not ended:
        return 0.0
    whole = examples * seeds_per_trial
    seen = sum(
        max(trial.intermediate_values, default=0) if trial.state == TrialState.PRUNED else whole
        for trial in ended
    )
    return 1 - seen / (whole * len(ended))


@dataclass(frozen=True)
class Replay:
    """What pruning would have done to full runs, in the order in which they ran.

    Attributes:
        num: Full runs.
        num_pruned: Those that would have been stopped.
        winner_pruned: Whether the best of them is among these; None where there is no run.
    """

    num: int
    num_pruned: int
    winner_pruned: bool | None


def replay(
    trials: Sequence[FrozenTrial], pruner: BasePruner, warmup: int = 0, spared: str | None = None
) -> Replay:
    """Ask a pruner at each intermediate value of full runs whether it would have stopped there.

    A run that it stops contributes no more than it had reported by then, as in the study. Trials
    that were pruned in the study are left out: their end is not known.

    Args:
        trials: Of a study with one objective that is maximised; complete ones are taken.
        pruner: A fresh one.
        warmup: Examples before which no trial is stopped.
        spared: An attribute of the trials that are never stopped, as baselines are.
    """
    whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    study = optuna.create_study(study_name="replay", direction="maximize", pruner=pruner)
    stopped = {t.number: _is_stopped(study, t, warmup, spared in t.user_attrs) for t in whole}
    best = max(whole, key=lambda trial: trial.values[0], default=None)
    return Replay(len(whole), sum(stopped.values()), None if best is None else stopped[best.number])


def _is_stopped(study: optuna.Study, run: FrozenTrial, warmup: int, is_spared: bool) -> bool:
    study.enqueue_trial(run.params)
    trial = study.ask(run.distributions)
    for step, value in sorted(run.intermediate_values.items()):
        trial.report(value, step)
        if not is_spared and step >= warmup and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    study.tell(trial, run.value)
    return False
