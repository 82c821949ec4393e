"""One study on several machines: a real PostgreSQL, a process and a folder for each machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import psycopg2
import pytest
from optuna.trial import TrialState

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
SECONDS = 100
needs_postgres = pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL in /usr/lib/postgresql")


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(happened):
    until = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def server():
    with tempfile.TemporaryDirectory(prefix="pixelis-postgres-") as folder:  # pytest's is root's
        user, words, port = "postgres", {}, free_port()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, user)
            words = {"user": user}
        data, quiet = Path(folder) / "data", subprocess.DEVNULL
        make = [POSTGRES[-1], "-D", data, "-U", user, "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(make, check=True, stdout=quiet, cwd=folder, **words)
        settings = (f"port={port}", "listen_addresses=127.0.0.1", "fsync=off")
        options = [word for each in settings for word in ("-c", each)]
        options += ["-c", "unix_socket_directories="]
        program = POSTGRES[-1].with_name("postgres")
        process = subprocess.Popen(
            [program, "-D", data, *options], stdout=quiet, stderr=quiet, cwd=folder, **words
        )

        def connects():
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user=user).close()
            except psycopg2.OperationalError:
                return False
            return True

        try:
            wait_for(connects)
            yield f"postgresql+psycopg2://{user}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # at once, whoever is connected
            process.wait(timeout=SECONDS)


@pytest.fixture
def start(tmp_path):
    """Start a machine's worker; all begin when the file is there."""
    processes = []

    def call(url, name, host, num_trials, seconds=0.3, grace=120, dies_at=-1):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        words = [url, folder, host, num_trials, seconds, tmp_path / "go", grace, dies_at]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "machine.py"), *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield call
    for process in processes:
        process.kill()
        process.communicate()


def lines(folder):
    return [json.loads(line) for f in folder.glob("*/ran.jsonl") for line in f.open()]


def end(process, code=0):
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, err


@needs_postgres
@pytest.mark.slow
def test_four_folders_on_two_hosts_started_together_share_a_study(server, start, tmp_path):
    # Two of each host: folders of one host do not see each other's locks either.
    machines = [start(server, f"m{i}", f"host{i % 2}", 13) for i in range(4)]
    wait_for(lambda: len(list(tmp_path.glob("*/ready"))) == 4)
    (tmp_path / "go").touch()
    for machine in machines:
        end(machine)
    study = optuna.load_study(study_name="search", storage=server)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 13
    ran = lines(tmp_path)
    assert sorted(line[1] for line in ran if line[0] == "search") == list(range(13))
    assert sorted(line[2] for line in ran if line[2]) == ["guide", "uniform"]
    assert len({json.dumps(trial.params, sort_keys=True) for trial in study.trials}) == 13
    assert len({trial.user_attrs["pixelis.worker"] for trial in study.trials}) > 1


@pytest.mark.parametrize(
    "kind", [pytest.param("server", marks=needs_postgres, id="postgresql"), "sqlite"]
)
@pytest.mark.parametrize("host", ["host0", pytest.param("host1", marks=pytest.mark.slow)])
def test_the_last_trial_of_a_machine_that_died_is_tried_again_elsewhere(
    kind, host, request, start, tmp_path, url
):
    storage = request.getfixturevalue("server") if kind == "server" else url
    (tmp_path / "go").touch()
    end(start(storage, "m0", "host0", 3, grace=4, dies_at=2), 9)
    # On the same host too, the other's folder is unknown: only the heartbeat tells.
    end(start(storage, "m1", host, 3, grace=4))
    study = optuna.load_study(study_name="search", storage=storage)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[3].params == study.trials[2].params
    assert [line[1] for line in lines(tmp_path)].count(2) == 2  # by its first number


def test_a_living_trial_of_another_folder_on_this_host_is_left_alone(url, start, tmp_path):
    (tmp_path / "go").touch()
    first = start(url, "m0", "host0", 1, seconds=5)
    wait_for(lambda: lines(tmp_path))
    second = start(url, "m1", "host0", 1)
    end(second)
    end(first)
    study = optuna.load_study(study_name="search", storage=url)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_trial_that_others_took_over_is_left_to_them(url, space, settings, tmp_path):
    from dataclasses import replace

    from pixelis.experiments.tune import finished_trials, open_study, run_trials

    study = open_study(url, "search", settings, identity={"a": 1})
    seen = []

    def objective(trial):
        seen.append(trial.number)
        if len(seen) < 3:  # another machine thinks that this one died
            study.tell(len(seen) - 1, state=TrialState.FAIL)
        if len(seen) == 1:
            trial.report(20, 0.1)  # and here it is noticed; in the second one at the end
        return 0.5

    run_trials(study, space, replace(settings, num_trials=3), objective, tmp_path)
    assert seen[:3] == [0, 0, 0] and len(finished_trials(study)) == 3
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL"] + ["COMPLETE"] * 3
