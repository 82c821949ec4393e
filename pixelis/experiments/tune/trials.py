"""The loop that runs a study's trials, each once, in any number of processes and machines.

Optuna's heartbeat finds the trials of machines that died, and its retry callback queues them again
with the same values. A retried trial keeps the folder of its first try, with the checkpoints. This
module adds three things:

- A trial is chosen under the storage's lock. Without it, processes that ask Optuna at the same
  moment begin too many trials, with samplers of the same seed.
- A process that died on this machine is noticed at once by its file lock. With heartbeats alone, a
  search that was killed and started again would wait for minutes at its end.
- A trial that was interrupted is queued again; Optuna's `optimize` drops it.
"""

import copy
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.storages._heartbeat import get_heartbeat_thread  # publicly used by `optimize` only
from optuna.trial import FrozenTrial, TrialState

from pixelis.errors import UserError
from pixelis.experiments.tune.pruning import explain
from pixelis.experiments.tune.storage import first_line, queue_again, storage_errors
from pixelis.experiments.tune.study import (
    BASELINE,
    CLAIM,
    ERROR,
    OVERRIDES,
    REASON,
    SEED,
    SearchStudy,
    first_number,
)

POLL_SECONDS = 1.0  # between two looks at the trials of others


class Trial:
    """One trial, as the objective sees it.

    Attributes:
        number: Number of the first try, which names the trial's folder.
        params: Dotted name -> value of the searched keys.
        baseline: Name of the baseline, or None if it is a searched trial.
        overrides: Dotted name -> value of a baseline's other keys.
        seed: Seed of its only training, or None.
    """

    def __init__(self, trial: optuna.Trial, search: SearchStudy) -> None:
        """Wrap Optuna's trial."""
        self._trial, self._search = trial, search
        frozen = search.trials[trial.number]
        self.number, self.params = first_number(frozen), dict(trial.params)
        self.baseline: str | None = frozen.user_attrs.get(BASELINE)
        self.overrides: dict[str, Any] = frozen.user_attrs.get(OVERRIDES) or {}
        self.seed: int | None = frozen.user_attrs.get(SEED)

    def report(self, examples: int, value: float) -> str | None:
        """Report an intermediate value after a number of examples; a baseline is never stopped.

        Returns:
            The reason to stop the trial here, for which the caller raises `pruned`, or None.
        """
        search = self._search
        if len(search.study.directions) > 1:
            return None
        self._trial.report(value, examples)
        is_spared = self.baseline is not None or examples < search.settings.warmup
        if is_spared or not self._trial.should_prune():
            return None
        reason = explain(search.trials, self._trial.number, examples, value, search.settings.pruner)
        self._trial.set_user_attr(REASON, reason)
        return reason

    def pruned(self, reason: str) -> TrialPruned:
        """Return the exception that ends a pruned trial."""
        return TrialPruned(reason)


Objective = Callable[[Trial], float | Sequence[float]]


@storage_errors()
def run_trials(
    search: SearchStudy, objective: Objective, folder: Path, *, wait: bool = True
) -> int:
    """Run trials, one after the other, until the study has its number of trials.

    Args:
        search: The study.
        objective: Trains one trial. After a `UserError` the trial is not tried again; after any
            other error it is queued again.
        folder: Folder of a file lock, on a disk of this machine.
        wait: Whether to wait for the trials of other processes, which may be queued again.

    Returns:
        The number of trials that ended in this process.

    Raises:
        KeyboardInterrupt: When a trial was stopped.
        UserError: When the storage is gone or stays locked.
    """
    num_run = 0
    with _claim(folder) as claim:
        while True:
            trial = _choose(search, claim)
            if trial is not None:
                num_run += _run(search, trial, objective)
            elif wait and search.is_running:
                time.sleep(POLL_SECONDS)
            else:
                return num_run


@contextmanager
def _claim(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the mark of this process's trials: its machine, and a file that it keeps locked."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.resolve() / f".worker-{uuid4().hex}.lock"
    with FileLock(file):
        yield socket.gethostname(), str(file)
    file.unlink(missing_ok=True)  # not after an error, when its trial may still be RUNNING


def _choose(search: SearchStudy, claim: tuple[str, str]) -> optuna.Trial | None:
    """Begin and return the next trial, or return None if there are enough."""
    study = search.study
    with search.lock():
        fail_stale_trials(study)
        for other in search.trials:
            if other.state == TrialState.RUNNING and _is_dead(other):
                _fail_and_queue_again(study, other)
        num_running = sum(other.state == TrialState.RUNNING for other in search.trials)
        if len(search.finished_trials()) + num_running >= search.settings.num_trials:
            return None
        num_begun = sum(other.state != TrialState.WAITING for other in search.trials)
        study.sampler = search.settings.build_sampler(num_begun)
        trial = study.ask({each.name: each.distribution for each in search.space})
        # A trial without a heartbeat would never be stale.
        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        trial.set_user_attr(CLAIM, [*claim, trial.number])
    return trial


def _is_dead(trial: FrozenTrial) -> bool:
    """Return whether a running trial's process is known to be dead; called under the lock."""
    host, file, number = trial.user_attrs.get(CLAIM, (None, "", None))
    if number != trial.number:
        return True  # it died while choosing the trial, which needs the lock that we hold
    if host != socket.gethostname() or not Path(file).exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


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
