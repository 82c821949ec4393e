"""A study's trials run by any number of processes on any number of machines: none lost, none twice.

What is chosen, freed and put back is one process's at a time, by a lock of the storage. A trial
that is stopped, or whose process dies, is failed and tried again with the same values, under the
number of the first try: its folder has the checkpoints to go on from.
"""

import hashlib
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from pixelis.errors import UserError
from pixelis.experiments.tune import storage
from pixelis.experiments.tune.exclusive import Exclusive, choosing
from pixelis.experiments.tune.settings import Settings
from pixelis.experiments.tune.space import Parameter
from pixelis.experiments.tune.study import (
    ERROR,
    WORKER,
    Trial,
    error_of,
    finished_trials,
    is_running,
)
from pixelis.files import write_atomic

POLL_SECONDS = 1.0  # between two looks at the trials of others
SEEN = "pixelis.seen_without_worker"


class TrialStopped(KeyboardInterrupt):
    """A trial was asked to stop; it is tried again from its checkpoint."""


Objective = Callable[[Trial], float | Sequence[float]]


@storage.storage_errors()
def run_trials(
    study: optuna.Study,
    space: Sequence[Parameter],
    settings: Settings,
    objective: Objective,
    folder: Path,
    *,
    wait: bool = True,
) -> int:
    """Run trials, one after the other, until the study has as many as it should.

    Any number of processes may do so at once. Those of one machine that share `folder` notice at
    once when one of them died, others after the storage's GRACE_SECONDS.

    Args:
        study: of `open_study`.
        space: what is searched.
        settings: of the study.
        objective: trains one trial; a `UserError` of it fails the trial for good.
        folder: for locks, on a disk of this machine.
        wait: for the trials that others are at, which have to be tried again where these die.

    Returns:
        how many trials ran here.

    Raises:
        TrialStopped: after a trial was stopped; it waits to be tried again.
        UserError: when the storage is gone or stays locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asking, me, ran = choosing(study), worker_name(folder), 0
    while True:
        with asking:
            _fail_the_dead(study, folder, me)
            _put_back(study)
            if _left(study, settings) > 0:
                begun = study.get_trials(deepcopy=False)
                num_begun = sum(trial.state != TrialState.WAITING for trial in begun)
                study.sampler = settings.build_sampler(num_begun)  # no two choices have one seed
                ran += _run_one(study, space, settings, objective, folder, me, asking)
                continue
        if not wait or not is_running(study):
            return ran
        time.sleep(POLL_SECONDS)


def worker_name(folder: Path) -> str:
    """What trials say of who is at them: the same for all processes that share locks in a folder.

    A copy of the folder, elsewhere or here, has another name.
    """
    file = folder / ".worker"
    with FileLock(folder / ".worker.lock"):
        if not file.exists():
            write_atomic(file, uuid.uuid4().hex)
        kept = file.read_text(encoding="utf-8")
    digest = hashlib.sha256(f"{folder.resolve()} {kept}".encode()).hexdigest()
    return f"{socket.gethostname()} {digest[:16]}"


def _run_one(
    study: optuna.Study,
    space: Sequence[Parameter],
    settings: Settings,
    objective: Objective,
    folder: Path,
    me: str,
    asking: Exclusive,
) -> bool:
    """Choose and run a trial; whether its end is ours to tell."""
    locks: list[FileLock] = []
    stops: list[KeyboardInterrupt] = []

    def call(trial: optuna.Trial) -> float | Sequence[float]:
        try:
            lock = _trial_lock(folder, trial.number)
            lock.acquire()  # and held until the study knows how it ended
            locks.append(lock)
            trial.set_user_attr(WORKER, me)
            params = {each.name: _suggest(trial, each) for each in space}
            asking.release()  # only the choice of values is one at a time
            return objective(Trial(trial, params, settings, len(study.directions) == 1))
        except UserError as error:
            trial.set_user_attr(ERROR, storage.first_line(error))
            raise
        except KeyboardInterrupt as error:
            stops.append(error)
            raise

    try:
        study.optimize(call, n_trials=1, catch=(UserError,))
    except Exception as error:
        if not _is_taken_over(error):
            raise
        if not stops:
            return False
    except KeyboardInterrupt as error:
        stops.append(error)
    finally:
        for lock in locks:
            lock.release()
        if not asking.is_locked:
            asking.acquire()  # what the caller's `with` lets go of
    if stops:
        _put_back(study)
        raise TrialStopped(str(stops[0])) from stops[0]
    return True


def _is_taken_over(error: BaseException | None) -> bool:
    """Whether somebody else ended the trial meanwhile: this process was thought to be dead."""
    while error is not None:
        told = isinstance(error, ValueError) and str(error).startswith("Cannot tell a ")
        if told or isinstance(error, UpdateFinishedTrialError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    kind = parameter.distribution
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(parameter.name, kind.choices)
    if isinstance(kind, optuna.distributions.IntDistribution):
        step = kind.step if not kind.log else 1
        return trial.suggest_int(parameter.name, kind.low, kind.high, step=step, log=kind.log)
    assert isinstance(kind, optuna.distributions.FloatDistribution)
    return trial.suggest_float(parameter.name, kind.low, kind.high, step=kind.step, log=kind.log)


def _left(study: optuna.Study, settings: Settings) -> int:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return settings.num_trials - len(finished_trials(study)) - len(running)


def _fail_the_dead(study: optuna.Study, folder: Path, me: str) -> None:
    """Trials of processes that share this folder, at once; of others, after a while."""
    fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        if worker is None:
            _fail_unclaimed(study, trial)
        elif worker == me:
            lock = _trial_lock(folder, trial.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                _fail(study, trial)
            finally:
                lock.release()


def _fail_unclaimed(study: optuna.Study, trial: FrozenTrial) -> None:
    """A trial whose process died before it left its name, maybe before its first heartbeat."""
    seen = trial.user_attrs.get(SEEN)
    try:
        if seen is None:
            study._storage.set_trial_user_attr(trial._trial_id, SEEN, time.time())
        elif time.time() - seen > storage.GRACE_SECONDS:
            _fail(study, trial)
    except UpdateFinishedTrialError:
        pass


def _fail(study: optuna.Study, trial: FrozenTrial) -> None:
    try:  # it may have ended after it was listed
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        pass


def _put_back(study: optuna.Study) -> None:
    """Let each trial that failed, not by itself, be tried again, once."""
    trials = study.get_trials(deepcopy=False)
    again = {number for t in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(t)}
    for trial in study.get_trials(states=(TrialState.FAIL,)):  # copies
        if trial.number not in again and error_of(trial) is None:
            for note in (WORKER, SEEN):
                trial._user_attrs.pop(note, None)
            RetryHeartbeatStaleTrialCallback()(study, trial)


def _trial_lock(folder: Path, number: int) -> FileLock:
    return FileLock(folder / f".trial-{number}.lock")
