"""The effect of pruning: its reasons, its savings, and a replay of it on complete trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


def explain(
    trials: Sequence[FrozenTrial], number: int, step: int, value: float, pruner: str
) -> str:
    """Return why a trial is stopped at a step, in comparison with the other trials there.

    Args:
        trials: The study's trials.
        number: Number of the stopped trial.
        step: Examples that it has seen.
        value: Its performance on the last stage's mix at this step.
        pruner: Name of the pruner.
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
    """Return the share of examples that pruning saved, compared with complete trials only.

    Args:
        trials: The study's trials; complete and pruned ones count.
        examples: Examples of one complete training.
        seeds_per_trial: Trainings of a complete trial; pruning stops a trial in its first training.
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
    """The effect that pruning would have had on complete trials, in the order in which they ran.

    Attributes:
        num: Number of complete trials.
        num_pruned: Number of trials that would have been stopped.
        winner_pruned: Whether the best trial would have been stopped; None without trials.
    """

    num: int
    num_pruned: int
    winner_pruned: bool | None


def replay(
    trials: Sequence[FrozenTrial], pruner: BasePruner, warmup: int = 0, spared: str | None = None
) -> Replay:
    """Replay complete trials with a pruner, and count those that it would have stopped.

    As in the study, the pruner does not see later values of a trial that it stopped. Trials that
    were pruned in the study are left out, because their end is not known.

    Args:
        trials: Trials of a study with one objective that is maximised.
        pruner: A pruner without a history.
        warmup: Examples before which no trial is stopped.
        spared: Attribute of the trials that are never stopped, such as baselines.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    study = optuna.create_study(study_name="replay", direction="maximize", pruner=pruner)
    stopped = {t.number: _is_stopped(study, t, warmup, spared in t.user_attrs) for t in complete}
    best = max(complete, key=lambda trial: trial.values[0], default=None)
    winner_pruned = None if best is None else stopped[best.number]
    return Replay(len(complete), sum(stopped.values()), winner_pruned)


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
