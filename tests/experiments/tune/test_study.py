"""A study that is stopped, killed, shared and refused: real processes on a real SQLite file."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from pixelis.errors import CheckpointError, UserError
from pixelis.experiments.tune import (
    BASELINE,
    ERROR,
    REASON,
    Settings,
    TrialStopped,
    best_trial,
    enqueue,
    finished_trials,
    open_study,
    run_trials,
    storage_errors,
)
from tests.experiments.tune.objective import objective, value

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture
def study(url, settings):
    return open_study(url, "search", settings, identity={"a": 1})


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def test_it_runs_as_many_as_it_should_and_says_why_it_stopped_some(
    study, space, settings, tmp_path
):
    assert run_trials(study, space, settings, objective(tmp_path, 0), tmp_path) == 12
    assert set(states(study)) == {"COMPLETE", "PRUNED"}
    assert len(finished_trials(study)) == 12
    for trial in study.get_trials(deepcopy=False):
        assert (trial.state == TrialState.PRUNED) == (REASON in trial.user_attrs)
    reasons = [t.user_attrs[REASON] for t in study.trials if REASON in t.user_attrs]
    assert all(
        reason.startswith("median: 0.") and " others were better" in reason for reason in reasons
    )
    best = best_trial(study)
    assert best.value == max(t.value for t in study.trials if t.state == TrialState.COMPLETE)
    assert run_trials(study, space, settings, objective(tmp_path, 0), tmp_path) == 0


def test_the_same_seed_searches_the_same_also_in_two_parts(url, study, space, settings, tmp_path):
    from dataclasses import replace

    for number in (5, 12):
        part = replace(settings, num_trials=number)
        run_trials(study, space, part, objective(tmp_path, 0), tmp_path)
    # The number of trials that are wanted says when the sampler begins to learn.
    other = open_study(url, "again", settings, identity={"a": 1})
    for number in (5, 12):
        part = replace(settings, num_trials=number)
        run_trials(other, space, part, objective(tmp_path, 0), tmp_path)
    assert [t.params for t in other.trials] == [t.params for t in study.trials]
    assert len({json.dumps(t.params) for t in study.trials}) > 6


def test_baselines_come_first_once_and_are_never_stopped(study, space, settings, tmp_path):
    worst = {"curriculum.advancement_interval": 10, "curriculum.rollback_threshold": -0.3}
    for _ in range(2):
        enqueue(study, "guide", params=worst)
    run_trials(study, space, settings, objective(tmp_path, 0), tmp_path)
    first, *others = study.trials
    assert (first.params, first.user_attrs[BASELINE]) == (worst, "guide")
    assert first.state == TrialState.COMPLETE
    assert all(BASELINE not in trial.user_attrs for trial in others)


def test_a_trial_that_is_stopped_waits_with_its_values_under_its_first_number(
    study, space, settings, tmp_path
):
    numbers = []

    def stop(trial):
        numbers.append((trial.number, trial.params))
        raise KeyboardInterrupt("stopped after step 3")

    for _ in range(2):
        with pytest.raises(TrialStopped, match="stopped after step 3"):
            run_trials(study, space, settings, stop, tmp_path)
    assert states(study) == ["FAIL", "FAIL", "WAITING"]
    assert finished_trials(study) == []

    def note(trial):
        numbers.append((trial.number, trial.params))
        return value(trial.params, 100)

    run_trials(study, space, settings, note, tmp_path)
    assert numbers[0] == numbers[1] == numbers[2] and numbers[0][0] == 0
    assert len(finished_trials(study)) == 12


def test_a_trial_that_fails_by_itself_is_not_tried_again(study, space, settings, tmp_path):
    def fail(trial):
        if trial.number % 2:
            raise UserError("training diverged: after step 2")
        return 0.5

    run_trials(study, space, settings, fail, tmp_path)
    assert states(study) == ["COMPLETE", "FAIL"] * 6
    assert study.trials[1].user_attrs[ERROR] == "training diverged: after step 2"


def test_our_own_mistake_is_not_swallowed(study, space, settings, tmp_path):
    def break_down(trial):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        run_trials(study, space, settings, break_down, tmp_path)


def start(url, folder, num_trials, seconds):
    return subprocess.Popen(
        [
            sys.executable,
            str(HERE / "objective.py"),
            url,
            str(folder),
            str(num_trials),
            str(seconds),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_four_workers_lose_no_trial_and_run_none_twice(url, settings, tmp_path):
    workers = [start(url, tmp_path, 16, 0.05) for _ in range(4)]
    for worker in workers:
        _, err = worker.communicate(timeout=100)
        assert worker.returncode == 0, err.decode()
    study = open_study(url, "search", settings, identity={"a": 1})
    assert len(study.trials) == len(finished_trials(study)) == 16
    ran = [json.loads(line)[0] for line in (tmp_path / "ran.jsonl").read_text().splitlines()]
    assert sorted(ran) == list(range(16))


@pytest.mark.slow
def test_killed_at_random_moments_every_trial_is_ended_and_whole_ones_are_not_run_again(
    url, settings, tmp_path
):
    draw = random.Random(5)
    for _ in range(3):
        workers = [start(url, tmp_path, 12, 0.3) for _ in range(2)]
        time.sleep(draw.uniform(1.5, 4))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
    last = start(url, tmp_path, 12, 0.05)
    _, err = last.communicate(timeout=100)
    assert last.returncode == 0, err.decode()
    study = open_study(url, "search", settings, identity={"a": 1})
    assert len(finished_trials(study)) == 12
    assert not [t for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    killed = [t for t in study.trials if t.state == TrialState.FAIL]
    tried_again = [t for t in study.trials if "failed_trial" in t.system_attrs]
    assert len(tried_again) == len(killed)
    for trial in tried_again:
        before = study.trials[trial.system_attrs["retry_history"][-1]]
        assert trial.params == before.params or not before.params


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///no/such/\0/x.db", "the storage sqlite:.* cannot be opened: "),
        (
            "nothing://x",
            "the storage nothing://x cannot be opened: it must be a database of sqlite",
        ),
        ("not a url", "the storage .* cannot be opened: "),
        ("sqlite://", "a study in memory ends with its process; name a file"),
        ("sqlite:///:memory:", "a study in memory ends with its process; name a file"),
        (
            "mysql+pymysql://host/db",
            "host/db cannot be opened: it must be a database of sqlite or .*, got mysql",
        ),
        (
            "postgresql+psycopg2://me:secret@127.0.0.1:1/db",
            r"the storage postgresql\+psycopg2://me:\*\*\*@127.0.0.1:1/db cannot be opened: ",
        ),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(
    url, message, settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_study(url, "search", settings, identity={})
    assert "secret" not in str(caught.value)


def test_a_study_with_other_settings_is_refused_and_stays(url, study, settings):
    with pytest.raises(CheckpointError, match="study search is from another .*: a was 1, is 2; go"):
        open_study(url, "search", settings, identity={"a": 2})
    with pytest.raises(CheckpointError, match="objectives was .'maximize'., is .*minimize"):
        open_study(url, "search", settings, identity={"a": 1}, directions=("maximize", "minimize"))
    assert open_study(url, "other", settings, identity={"a": 2}).study_name == "other"


def test_a_storage_that_vanishes_is_one_message(study, space, settings, tmp_path):
    def vanish(trial):
        with sqlite3.connect(tmp_path / "optuna.db") as store:
            store.execute("DROP TABLE trial_values")
        return 0.5

    with pytest.raises(UserError, match="the study's storage is gone or locked .*go on with"):
        run_trials(study, space, settings, vanish, tmp_path)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_every_sampler_and_pruner_runs(url, space, tmp_path, sampler, pruner):
    settings = Settings(
        sampler=sampler, seed=1, pruner=pruner, warmup=20, examples=100, num_trials=6
    )
    study = open_study(url, "search", settings, identity={})
    assert run_trials(study, space, settings, objective(tmp_path, 0), tmp_path) == 6
    assert pruner != "none" or set(states(study)) == {"COMPLETE"}


def test_two_objectives_are_never_stopped_and_the_best_is_that_of_the_first(
    url, space, settings, tmp_path
):
    study = open_study(url, "two", settings, identity={}, directions=("maximize", "minimize"))

    def both(trial):
        assert trial.report(20, 0.0) is None
        return value(trial.params, 100), trial.params["curriculum.advancement_interval"]

    run_trials(study, space, settings, both, tmp_path)
    assert best_trial(study).values[0] == max(t.values[0] for t in study.trials)


@pytest.mark.parametrize("how", ["locked", "emptied"])
def test_a_storage_that_goes_while_it_is_used_is_said_with_what_the_database_said(
    how, url, settings, space, tmp_path, monkeypatch
):
    monkeypatch.setattr("pixelis.experiments.tune.storage.SQLITE_SECONDS", 0.5)
    study = open_study(url, "search", settings, identity={"a": 1})
    file = tmp_path / "optuna.db"
    other = sqlite3.connect(file, isolation_level=None)

    def lose(trial):
        if how == "locked":
            other.execute("BEGIN EXCLUSIVE")
        else:
            for name in ("trial_values", "trials", "studies"):
                other.execute(f"DROP TABLE {name}")
        return 0.5

    said = {"locked": "database is locked", "emptied": "no such table: "}[how]
    message = rf"the study's storage is gone or locked \({said}"
    with pytest.raises(UserError, match=message):
        run_trials(study, space, settings, lose, tmp_path)
    for call in (lambda: finished_trials(study), lambda: study.set_user_attr("a", 1)):
        with pytest.raises(UserError, match=message), storage_errors():
            call()
    if how == "locked":
        with pytest.raises(UserError, match="cannot be opened: database is locked"):
            open_study(url, "search", settings, identity={"a": 1})
    other.close()


def test_a_lock_that_another_process_keeps_is_named(url, study, monkeypatch):
    monkeypatch.setattr("pixelis.experiments.tune.exclusive.WAIT_SECONDS", 0.2)
    from threading import Thread

    from pixelis.experiments.tune.exclusive import choosing

    with choosing(study):
        caught = []

        def other():
            try:
                enqueue(study, "guide")
            except UserError as error:
                caught.append(str(error))

        thread = Thread(target=other)
        thread.start()
        thread.join()
    assert caught[0].startswith("the choice of a trial is one process's at a time, and another")
    assert "of the lock file" in caught[0] and ".optuna.db." in caught[0]
