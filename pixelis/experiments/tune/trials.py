"""The loop that runs a study's trials, each once, in any number of processes and machines.

Optuna's heartbeat finds the trials of processes that died, and its retry callback queues them again
with the same values. A retried trial keeps the folder of its first try, with the checkpoints. This
module adds two things:

- A trial is chosen under the storage's lock. Without it, processes that ask Optuna at the same
  moment begin too many trials, with samplers of the same seed.
- A trial that was interrupted is queued again; Optuna's `optimize` drops it.
"""

import copy
import math
import time
from collections.abc import Callable, Collection, Sequence
from statistics import median
from typing import Any

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.storages._heartbeat import get_heartbeat_thread  # publicly used by `optimize` only
from optuna.trial import FrozenTrial, TrialState

from pixelis.errors import UserError
from pixelis.experiments.tune.storage import first_line, queue_again, storage_errors
from pixelis.experiments.tune.study import (
    BASELINE,
    CHOSEN,
    ERROR,
    OVERRIDES,
    REASON,
    SEED,
    SearchStudy,
    build_sampler,
    first_number,
)

POLL_SECONDS = 1.0  # between two looks at the trials of others


class Trial:
    """One trial, as the objective sees it."""

    def __init__(self, trial: optuna.Trial, search: SearchStudy) -> None:
        """Wrap Optuna's trial."""
        self._trial, self._search, self.phase = trial, search, search.phase
        frozen = search.trials[trial.number]
        self.number = first_number(frozen)  # of the first try, which names the trial's folder
        self.params = dict(trial.params)  # dotted name -> value of the searched keys
        self.baseline: str | None = frozen.user_attrs.get(BASELINE)  # None: a searched trial
        # A baseline's values of other keys, and the seed if it has only one training.
        self.overrides: dict[str, Any] = frozen.user_attrs.get(OVERRIDES) or {}
        self.seed: int | None = frozen.user_attrs.get(SEED)

    def report(self, examples: int, value: float) -> str | None:
        """Report an intermediate value after a number of examples; a baseline is never stopped.

        Returns:
            The reason to stop the trial here, for which the caller raises `pruned`, or None.
        """
        search = self._search
        if len(search.study.directions) > 1:  # Optuna prunes by one objective only
            return None
        self._trial.report(value, examples)
        is_spared = self.baseline is not None or examples < search.spec.warmup
        if is_spared or not self._trial.should_prune():
            return None
        reason = f"{search.spec.config.pruner}: {value:.4f} after {examples} examples"
        others = [
            trial.intermediate_values[examples]
            for trial in search.trials
            if trial.number != self._trial.number and examples in trial.intermediate_values
        ]
        if others:
            num_better = sum(other > value for other in others)
            reason += f", where {num_better} of {len(others)} others were better"
            reason += f" (median {median(others):.4f})"
        self._trial.set_user_attr(REASON, reason)
        return reason

    def pruned(self, reason: str) -> TrialPruned:
        """Return the exception that ends a pruned trial."""
        return TrialPruned(reason)


Objective = Callable[[Trial], float | Sequence[float]]


@storage_errors()
def run_phases(studies: Collection[SearchStudy], objective: Objective) -> None:
    """Run the remaining trials of all phases; those of other processes may be queued again.

    Raises:
        KeyboardInterrupt: When a trial was stopped.
        UserError: When the storage is gone or stays locked.
    """
    while True:
        others_run = any(search.is_running for search in studies)
        if not sum(run_trials(search, objective) for search in studies):
            if not others_run:
                return
            time.sleep(POLL_SECONDS)


@storage_errors()
def run_trials(search: SearchStudy, objective: Objective) -> int:
    """Run trials until the study has its number; return how many ended in this process.

    After a `UserError` of the objective the trial is not tried again; after any other error it is
    queued again.

    Raises:
        KeyboardInterrupt: When a trial was stopped.
        UserError: When the storage is gone or stays locked.
    """
    num_run = 0
    while (trial := _choose(search)) is not None:
        num_run += _run(search, trial, objective)
    return num_run


def _choose(search: SearchStudy) -> optuna.Trial | None:
    """Begin and return the next trial, or return None if there are enough."""
    study = search.study
    with search.lock():
        fail_stale_trials(study)
        for other in search.trials:
            # Without this mark its process died while choosing it, which needs the lock we hold.
            is_chosen = other.user_attrs.get(CHOSEN) == other.number
            if other.state == TrialState.RUNNING and not is_chosen:
                _fail_and_queue_again(study, other)
        num_running = sum(other.state == TrialState.RUNNING for other in search.trials)
        if len(search.finished_trials()) + num_running >= search.num_trials:
            return None
        num_begun = sum(other.state != TrialState.WAITING for other in search.trials)
        study.sampler = build_sampler(search.spec, num_begun)
        trial = study.ask(search.space)
        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        trial.set_user_attr(CHOSEN, trial.number)
    return trial


def _fail_and_queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Fail a trial and queue it again with the same values."""
    try:
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return  # it ended meanwhile
    queue_again(study, copy.deepcopy(trial))


def _run(search: SearchStudy, trial: optuna.Trial, objective: Objective) -> bool:
    """Run a trial; return whether it ended in this process."""
    study, values, state = search.study, None, TrialState.COMPLETE
    with get_heartbeat_thread(trial._trial_id, study._storage):
        try:
            result = objective(Trial(trial, search))
            values = list(result) if isinstance(result, Sequence) else [result]
            if not all(map(math.isfinite, values)):
                raise UserError(f"its value is not a finite number: {values}")
        except TrialPruned:
            state = TrialState.PRUNED
        except UserError as error:
            trial.set_user_attr(ERROR, first_line(error))
            values, state = None, TrialState.FAIL
        except UpdateFinishedTrialError:
            return False  # another process took this one for dead and has taken the trial
        except BaseException:
            _fail_and_queue_again(study, search.trials[trial.number])
            raise
    ended = study.tell(trial, values, state=state, skip_if_finished=True)
    return ended.state == state
