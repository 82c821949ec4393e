"""A study in this process: what is chosen, stopped, pruned, refused, and said when it fails."""

import json
import sqlite3
from threading import Thread

import pytest
from optuna.trial import TrialState

from pixelis.errors import CheckpointError, UserError
from pixelis.experiments.tune import storage
from pixelis.experiments.tune.storage import storage_errors
from pixelis.experiments.tune.study import BASELINE, ERROR, REASON, error_of, open_study
from pixelis.experiments.tune.trials import run_trials
from tests.experiments.tune.worker import objective, value


def states(search):
    return [trial.state.name for trial in search.trials]


def test_a_study_runs_the_trials_that_it_should_and_says_why_it_pruned_some(search, tmp_path):
    assert run_trials(search, objective(tmp_path)) == 12
    assert set(states(search)) == {"COMPLETE", "PRUNED"}
    assert len(search.finished_trials()) == 12
    for trial in search.trials:
        assert (trial.state == TrialState.PRUNED) == (REASON in trial.user_attrs)
    reasons = [t.user_attrs[REASON] for t in search.trials if REASON in t.user_attrs]
    assert all(
        reason.startswith("median: 0.") and " others were better" in reason for reason in reasons
    )
    whole = [t.value for t in search.trials if t.state == TrialState.COMPLETE]
    assert search.best_trial().value == max(whole)
    assert run_trials(search, objective(tmp_path)) == 0


def test_the_same_seed_searches_the_same_also_in_two_parts(make, tmp_path):
    found = []
    for study in ("one", "two"):
        for num_trials in (5, 12):
            # The number of trials decides how many are drawn at random first.
            search = open_study(make(study=study, num_trials=num_trials))
            run_trials(search, objective(tmp_path))
        found.append([trial.params for trial in search.trials])
    assert found[0] == found[1]
    assert len({json.dumps(params) for params in found[0]}) > 6


def test_baselines_come_first_once_and_are_never_pruned(search, tmp_path):
    worst = {"curriculum.advancement_interval": 10, "curriculum.rollback_threshold": -0.3}
    for _ in range(2):
        search.enqueue("guide", worst)
    run_trials(search, objective(tmp_path))
    first, *others = search.trials
    assert (first.params, first.user_attrs[BASELINE]) == (worst, "guide")
    assert first.state == TrialState.COMPLETE
    assert all(BASELINE not in trial.user_attrs for trial in others)


def test_a_stopped_trial_is_tried_again_with_its_values_and_its_first_number(search, tmp_path):
    tries = []

    def stop(trial):
        tries.append((trial.number, trial.params))
        raise KeyboardInterrupt("stopped after step 3")

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
            run_trials(search, stop)
    assert states(search) == ["FAIL", "FAIL", "WAITING"]
    assert search.finished_trials() == []

    def finish(trial):
        tries.append((trial.number, trial.params))
        return value(trial.params)

    run_trials(search, finish)
    assert tries[0] == tries[1] == tries[2] and tries[0][0] == 0
    assert len(search.finished_trials()) == 12


def test_a_trial_whose_process_died_while_it_was_chosen_is_tried_again(search, tmp_path):
    search.study.ask()
    assert run_trials(search, objective(tmp_path)) == 12
    assert states(search)[0] == "FAIL" and len(search.finished_trials()) == 12


def test_a_trial_whose_process_dies_again_and_again_fails_for_good(search, tmp_path, monkeypatch):
    monkeypatch.setattr("pixelis.experiments.tune.study.MAX_RETRIES", 1)
    monkeypatch.setattr(storage, "MAX_RETRIES", 1)

    def stop(trial):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_trials(search, stop)
    assert states(search) == ["FAIL", "FAIL"]
    assert error_of(search.trials[1]) == "its process ended 2 times before the trial did"
    assert search.num_finished() == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("training diverged: after step 2"), "training diverged: after step 2"),
        (None, "its value is not a finite number: [nan]"),
    ],
)
def test_a_trial_that_fails_by_itself_is_not_tried_again(search, tmp_path, error, reason):
    def fail(trial):
        if trial.number % 2 == 0:
            return 0.5
        if error is None:
            return float("nan")
        raise error

    run_trials(search, fail)
    assert states(search) == ["COMPLETE", "FAIL"] * 6
    assert search.trials[1].user_attrs[ERROR] == reason


def test_a_fault_of_ours_is_raised(search, tmp_path):
    def break_down(trial):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        run_trials(search, break_down)


def test_a_trial_that_others_took_over_is_left_to_them(make):
    search, seen = open_study(make(num_trials=3)), []

    def take_over(trial):
        seen.append(trial.number)
        if len(seen) < 3:  # another machine takes this process for dead
            search.study.tell(len(seen) - 1, state=TrialState.FAIL)
            storage.queue_again(search.study, search.study.trials[len(seen) - 1])
        if len(seen) == 1:
            trial.report(20, 0.1)  # here it is noticed; in the second one at the end
        return 0.5

    run_trials(search, take_over)
    assert seen[:3] == [0, 0, 0] and len(search.finished_trials()) == 3
    assert states(search) == ["FAIL", "FAIL"] + ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////proc/x/y.db", "the storage sqlite:////proc/x/y.db cannot be opened: "),
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
    url, message, make, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_study(make(storage=url))
    assert "secret" not in str(caught.value)


def test_a_study_with_other_settings_is_refused_and_stays(make, search):
    with pytest.raises(CheckpointError, match="study search is from another .*: seeds_per_trial w"):
        open_study(make(seeds_per_trial=2))
    with pytest.raises(CheckpointError, match="objectives was .'maximize'., is .*minimize"):
        open_study(make(target=0.5, pruner="none"))
    other = open_study(make(study="other", seeds_per_trial=2))
    assert other.study.study_name == "other"


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_every_sampler_and_pruner_runs(make, tmp_path, sampler, pruner):
    search = open_study(make(sampler=sampler, pruner=pruner, num_trials=6))
    assert run_trials(search, objective(tmp_path)) == 6
    assert pruner != "none" or set(states(search)) == {"COMPLETE"}


def test_a_gaussian_process_learns_from_pruned_trials(make):
    search = open_study(make(sampler="gp", num_trials=16))

    def run(trial):
        far = abs(trial.params["curriculum.advancement_interval"] - 10) / 90
        value = 0.9 - far - abs(trial.params["curriculum.rollback_threshold"] + 0.2)
        for step in (20, 40):
            if reason := trial.report(step, value):
                raise trial.pruned(reason)
        return value

    run_trials(search, run)
    assert "PRUNED" in states(search)
    assert len({tuple(trial.params.values()) for trial in search.trials}) == len(search.trials)


def test_two_objectives_are_never_pruned_and_the_best_is_that_of_the_first(make):
    search = open_study(make(target=0.5, pruner="none"))

    def both(trial):
        assert trial.report(20, 0.0) is None
        return value(trial.params), trial.params["curriculum.advancement_interval"]

    run_trials(search, both)
    assert search.best_trial().values[0] == max(t.values[0] for t in search.trials)


@pytest.mark.parametrize("how", ["locked", "emptied", "damaged"])
def test_a_storage_that_goes_while_it_is_used_is_named_with_the_databases_words(
    how, make, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "SQLITE_SECONDS", 0.5)
    search = open_study(make())
    other = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    tables = {"emptied": ("trial_values", "trials", "studies"), "damaged": ("trial_values",)}

    def lose(trial):
        if how == "locked":
            other.execute("BEGIN EXCLUSIVE")
        for name in tables.get(how, ()):
            other.execute(f"DROP TABLE {name}")
        return 0.5

    text = "database is locked" if how == "locked" else "no such table: "
    message = rf"the study's storage is gone or locked \(.*{text}.*go on with"
    with pytest.raises(UserError, match=message):
        run_trials(search, lose)
    if how != "damaged":
        for call in (search.finished_trials, lambda: search.study.set_user_attr("a", 1)):
            with pytest.raises(UserError, match=message), storage_errors():
                call()
    if how == "locked":
        with pytest.raises(UserError, match="cannot be opened: .*database is locked"):
            open_study(make())
    other.close()


def test_a_lock_that_another_process_keeps_is_named(search, monkeypatch):
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.2)
    caught = []

    def enqueue():
        with pytest.raises(UserError) as error, storage_errors():
            search.enqueue("guide", {})
        caught.append(str(error.value))

    with search.lock():
        thread = Thread(target=enqueue)
        thread.start()
        thread.join()
    assert "the study's storage is gone or locked (The file lock" in caught[0]
    assert ".optuna.db.lock" in caught[0]
