"""A study shared by processes that are killed, on one machine and on several.

A machine is a process with a folder of its own; a server is a real PostgreSQL.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from pixelis.experiments.tune.study import open_study
from tests.experiments.tune.worker import GUIDE, build_spec
from tests.postgres import POSTGRES, SECONDS, postgres, wait_for

__all__ = ["postgres"]  # a fixture

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
needs_postgres = pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL in /usr/lib/postgresql")


@pytest.fixture
def start(tmp_path):
    """Start a worker in a folder of its own, with the options of `worker.py`."""
    processes = []

    def call(url, name="m0", **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        arguments = [url, str(folder), json.dumps(options)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.tune.worker", *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield call
    for process in processes:
        process.kill()
        process.wait()


def end(process, code=0):
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, err


def lines(folder):
    return [json.loads(line) for file in folder.glob("*/ran.jsonl") for line in file.open()]


def trials(url, folder, **changed):
    return open_study(build_spec(url, folder, **changed)).trials


@pytest.mark.parametrize(
    "kind",
    [pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow]), "sqlite"],
)
def test_four_workers_that_start_together_lose_no_trial_and_run_none_twice(
    kind, request, url, start, tmp_path
):
    url = request.getfixturevalue("postgres") if kind == "postgres" else url
    baselines = {"guide": {"curriculum": GUIDE}, "uniform": {"curriculum": {"enabled": False}}}
    options = {"num_trials": 16, "seconds": 0.1, "pruner": "none", "baselines": baselines}
    options["go"] = str(tmp_path / "go")
    workers = [start(url, f"m{i}", **options) for i in range(4)]
    wait_for(lambda: len(list(tmp_path.glob("*/ready-*"))) == 4)
    (tmp_path / "go").touch()
    for worker in workers:
        end(worker)
    whole = trials(url, tmp_path, baselines=baselines)
    assert [trial.state.name for trial in whole] == ["COMPLETE"] * 16
    ran = lines(tmp_path)
    assert sorted(each["number"] for each in ran if each["phase"] == "trials") == list(range(16))
    assert sorted(each["baseline"] for each in ran if each["baseline"]) == ["guide", "uniform"]
    assert len({json.dumps(trial.params, sort_keys=True) for trial in whole}) == 16
    assert len({file.parent for file in tmp_path.glob("*/ran.jsonl")}) > 1


@pytest.mark.slow
def test_killed_at_random_moments_every_trial_ends_and_whole_ones_are_not_run_again(
    url, start, tmp_path
):
    draw = random.Random(5)
    for _ in range(3):
        workers = [start(url, seconds=0.3) for _ in range(2)]
        time.sleep(draw.uniform(1.5, 4))
        for worker in workers:
            worker.kill()
            worker.communicate()
    end(start(url, seconds=0.05))
    all_trials = trials(url, tmp_path)
    ended = [t for t in all_trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    killed = [t for t in all_trials if t.state == TrialState.FAIL]
    tried_again = [t for t in all_trials if "failed_trial" in t.system_attrs]
    assert len(ended) == 12 and len(ended) + len(killed) == len(all_trials)
    assert len(tried_again) == len(killed)
    for trial in tried_again:
        before = all_trials[trial.system_attrs["retry_history"][-1]]
        assert trial.params == before.params or not before.params


@pytest.mark.parametrize(
    "kind",
    [pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow]), "sqlite"],
)
def test_the_last_trial_of_a_process_that_died_is_tried_again_by_another(
    kind, request, url, start, tmp_path
):
    url = request.getfixturevalue("postgres") if kind == "postgres" else url
    options = {"num_trials": 3, "pruner": "none", "study": "another"}
    end(start(url, "m0", dies_at=2, **options), 9)
    end(start(url, "m1", **options))  # only the heartbeat tells it
    _, _, died, again = all_trials = trials(url, tmp_path, study="another")
    states = [trial.state.name for trial in all_trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert again.params == died.params
    assert [each["number"] for each in lines(tmp_path)].count(2) == 2  # by its first number


def test_a_living_trial_of_another_process_is_left_alone(url, start, tmp_path):
    first = start(url, "m0", num_trials=1, seconds=8)  # two times the grace
    wait_for(lambda: lines(tmp_path))
    end(start(url, "m1", num_trials=1))
    end(first)
    assert [trial.state.name for trial in trials(url, tmp_path)] == ["COMPLETE"]
