"""The trials of one Optuna study: stopped at any time, run by many processes, none twice.

A trial that is stopped, or whose process dies, is failed and waits to be tried again with the same
values, under the number of the first try: its folder has the checkpoints to go on from.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import TrialPruned
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from pixelis.errors import UserError
from pixelis.tuning.pruning import explain
from pixelis.tuning.settings import Settings
from pixelis.tuning.space import Parameter
from pixelis.tuning.storage import GONE, MAX_RETRIES, first_line

BASELINE, OVERRIDES, SEED, WORKER, ERROR, REASON = (
    f"pixelis.{name}" for name in ("baseline", "overrides", "seed", "worker", "error", "reason")
)


class TrialStopped(KeyboardInterrupt):
    """A trial was asked to stop; it is tried again from its checkpoint."""


class Trial:
    """What the objective is given.

    Attributes:
        number: of the first try: names the trial's folder.
        params: dotted name -> value, of what is searched.
        baseline: the name of the baseline that it is, or None.
        overrides: dotted name -> value, of a baseline.
        seed: of its one training, or None.
    """

    def __init__(
        self, trial: optuna.Trial, params: Mapping[str, Any], settings: Settings, prunable: bool
    ) -> None:
        """Wrap Optuna's."""
        self._trial, self._settings, self._prunable = trial, settings, prunable
        frozen = _frozen(trial)
        self.number, self.params = _first_number(frozen), dict(params)
        self.baseline: str | None = frozen.user_attrs.get(BASELINE)
        self.overrides: dict[str, Any] = frozen.user_attrs.get(OVERRIDES) or {}
        self.seed: int | None = frozen.user_attrs.get(SEED)

    def report(self, examples: int, value: float) -> str | None:
        """Tell an intermediate value, after so many examples; a baseline is never stopped.

        Returns:
            why the trial should end here, or None. The caller then ends with `pruned`.
        """
        if not self._prunable:
            return None
        self._trial.report(value, examples)
        if self.baseline is not None or not self._trial.should_prune():
            return None
        reason = explain(
            self._trial.study, _frozen(self._trial), examples, value, self._settings.pruner
        )
        self.note(REASON, reason)
        return reason

    def pruned(self, reason: str) -> TrialPruned:
        """What the objective raises after `report` said that it should end."""
        return TrialPruned(reason)

    def note(self, key: str, value: Any) -> None:
        """Keep something with the trial."""
        self._trial.set_user_attr(key, value)


Objective = Callable[[Trial], float | Sequence[float]]


def enqueue(
    study: optuna.Study,
    baseline: str,
    *,
    params: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> None:
    """Let a baseline be the next trial, once in the study's life.

    Args:
        study: of `open_study`.
        baseline: its name.
        params: its values of what is searched.
        overrides: its values of anything else.
        seed: of its training; None: those of any trial.
    """
    known = {trial.user_attrs.get(BASELINE) for trial in study.get_trials(deepcopy=False)}
    if baseline not in known:
        notes = {BASELINE: baseline, OVERRIDES: dict(overrides or {}), SEED: seed}
        study.enqueue_trial(dict(params or {}), user_attrs=notes)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended for good: whole, pruned, or failed by themselves."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and ERROR in trial.user_attrs)
    ]


def is_running(study: optuna.Study) -> bool:
    """Whether any process is at a trial, or has died at one and nobody has noticed."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The whole trial with the highest first objective; the earliest of equals."""
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(whole, key=lambda trial: (trial.values[0], -trial.number), default=None)


def run_trials(
    study: optuna.Study,
    space: Sequence[Parameter],
    settings: Settings,
    objective: Objective,
    folder: Path,
) -> int:
    """Run trials, one after the other, until the study has as many as it should.

    Any number of processes may do so at once; on one machine they share `folder`.

    Args:
        study: of `open_study`.
        space: what is searched.
        settings: of the study.
        objective: trains one trial; a `UserError` of it fails the trial for good.
        folder: for locks, on a disk of this machine.

    Returns:
        how many trials ran here.

    Raises:
        TrialStopped: after a trial was stopped; it waits to be tried again.
        UserError: when the storage is gone or stays locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asking = FileLock(folder / ".ask.lock")
    ran = 0
    try:
        while True:
            with asking:
                _free_the_dead(study, folder)
                if _left(study, settings) <= 0:
                    return ran
                num_known = len(study.get_trials(deepcopy=False))
                study.sampler = settings.build_sampler(num_known)
                _run_one(study, space, settings, objective, folder, asking)
                ran += 1
    # Optuna fails in its own way where it cannot tell the storage how a trial ended.
    except (*GONE, UnboundLocalError) as error:
        cause = _gone(error)
        if cause is None:
            raise
        raise UserError(
            f"the study's storage is gone or locked ({first_line(cause)}); every finished trial "
            "is kept in it: go on with the same command when it is back"
        ) from error


def _gone(error: BaseException | None) -> BaseException | None:
    """The error of the storage, behind whatever it led to."""
    while error is not None and not isinstance(error, GONE):
        error = error.__cause__ or error.__context__
    return error


def _run_one(
    study: optuna.Study,
    space: Sequence[Parameter],
    settings: Settings,
    objective: Objective,
    folder: Path,
    asking: FileLock,
) -> None:
    begun: list[tuple[int, FileLock]] = []

    def call(trial: optuna.Trial) -> float | Sequence[float]:
        params = {each.name: _suggest(trial, each) for each in space}
        lock = _trial_lock(folder, trial.number)
        lock.acquire()  # and held until the study knows how it ended
        begun.append((trial.number, lock))
        trial.set_user_attr(WORKER, socket.gethostname())
        asking.release()  # only the choice of values is one at a time
        try:
            return objective(Trial(trial, params, settings, len(study.directions) == 1))
        except UserError as error:
            trial.set_user_attr(ERROR, first_line(error))
            raise

    try:
        study.optimize(call, n_trials=1, catch=(UserError,))
    except KeyboardInterrupt as error:
        for number, _ in begun:
            _try_again(study, number)
        raise TrialStopped(str(error)) from error
    finally:
        for _, lock in begun:
            lock.release()
        if not asking.is_locked:
            asking.acquire()  # what the caller's `with` lets go of


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


def _free_the_dead(study: optuna.Study, folder: Path) -> None:
    """Trials of this machine whose process is gone, at once; of others, Optuna waits a while."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(WORKER, socket.gethostname()) != socket.gethostname():
            continue
        lock = _trial_lock(folder, trial.number)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            # Asked again: it may have ended after it was listed.
            if study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
                _try_again(study, trial.number)
        finally:
            lock.release()


def _try_again(study: optuna.Study, number: int) -> None:
    trial = study.get_trials(deepcopy=False)[number]
    RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, trial)


def _trial_lock(folder: Path, number: int) -> FileLock:
    return FileLock(folder / f".trial-{number}.lock")


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.study.get_trials(deepcopy=False)[trial.number]


def _first_number(trial: FrozenTrial) -> int:
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first
