"""Working folders, and entry points at work in them: forked or started from nothing, killed."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from functools import cached_property
from pathlib import Path

import psutil
from mlflow import MlflowClient

from tests.faults.watching import Watch
from tests.forking import TIMEOUT

KILLED = -signal.SIGKILL
SEED = "PIXELIS_FAULTS_SEED"  # other moments


class Place:
    """A working folder with a store."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"

    @cached_property
    def client(self):
        """Of the store: made when it is first asked, since that makes the store where none is."""
        return MlflowClient(self.uri)

    def use_store(self, template):
        """Have the tables already."""
        shutil.copy(template, self.folder / "mlflow.db")
        with sqlite3.connect(self.folder / "mlflow.db") as store:
            # Experiments keep the artifact folder that they were made with: the template's.
            artifacts = str(self.folder / "artifacts")
            store.execute("UPDATE experiments SET artifact_location = ?", [artifacts])

    def runs(self, entry_point=None):
        """The runs of the store, or those of an entry point; those of visits are left out."""
        ids = [each.experiment_id for each in self.client.search_experiments()]
        return [
            run
            for run in self.client.search_runs(ids)
            if "pixelis.visit" not in run.data.tags
            and entry_point in (None, run.data.tags.get("pixelis.entry_point"))
        ]

    def statuses(self):
        """Of every run of the store, those of visits too."""
        ids = [each.experiment_id for each in self.client.search_experiments()]
        return {run.info.status for run in self.client.search_runs(ids)}

    def histories(self, run):
        """Steps and values of each of a run's metrics, but the machine's and those of time."""
        return {
            key: sorted(
                (m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
            if not key.startswith("system/") and "second" not in key
        }

    def artifact(self, run, name):
        """A text that a run keeps."""
        return Path(self.client.download_artifacts(run.info.run_id, name)).read_text()

    def log(self):
        """What the processes in this folder have said."""
        path = self.folder / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""


class Starter:
    """Starts entry points, one at a time."""

    def __init__(self, server, environment):
        self.server, self.environment = server, environment

    def start(self, place, entry_point, arguments, *, from_nothing=False, **environment):
        """A process at work: of `python -m` where it starts from nothing, else a fork."""
        environment = {"MLFLOW_TRACKING_URI": place.uri, **environment}
        if from_nothing:
            with (place.folder / "log.txt").open("ab") as log:
                return Started(
                    subprocess.Popen(
                        [sys.executable, "-m", f"pixelis.cli.{entry_point}", *arguments],
                        cwd=place.folder,
                        env={**self.environment, **environment},
                        stdout=log,
                        stderr=log,
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
        return self.server.start(
            {"entry_point": entry_point, "argv": list(arguments)},
            folder=place.folder,
            environment=environment,
            log="log.txt",
        )

    def finish(self, place, entry_point, arguments, **environment):
        """Run an entry point to its end; its exit code."""
        return self.start(place, entry_point, arguments, **environment).wait()


class Started:
    """A process of `python -m`."""

    def __init__(self, process):
        self.process, self.pid = process, process.pid

    def wait(self):
        """Its exit code."""
        return self.process.wait(TIMEOUT)


def victims(pid, whom):
    """The processes to kill: `main`, `all`, or one `worker` where there is one."""
    main = psutil.Process(pid)
    below = [each for each in main.children(recursive=True) if each.status() != "zombie"]
    if whom == "main" or not below:
        return [main]
    if whom == "all":
        return [main, *below]
    # A job, or a worker of the server of workers, not the server itself.
    workers = [p for p in below if p.ppid() != pid or "pixelis.runs.jobs" in p.cmdline()]
    return workers[:1] or [main]


class Killer:
    """Kills a command at random moments until it is done as often as it should be.

    Args:
        starter: of the processes.
        entry_point: module of `pixelis.cli`.
        arguments: the same at every start.
        classify: path -> `save`, `upload`, another class, or None.
        whom: whose choices are `main`, `all`, `worker`.
        seed: of the moments, with that of `make faults SEED=`.
    """

    def __init__(self, starter, entry_point, arguments, classify, *, whom=("main",), seed):
        self.starter, self.entry_point, self.arguments = starter, entry_point, arguments
        self.classify, self.whom = classify, whom
        self.random = random.Random(f"{entry_point} {seed}{os.environ.get(SEED, '')}")
        self.counts, self.until_first, self.moments = {}, 1.0, []
        self.kinds = []

    def run(self, make_place, check, *, wanted, repeats=(1, 1, 2, 3), failed=frozenset()):
        """Kill the command `wanted` times, in folders of their own, and finish it in each.

        Args:
            make_place: makes a folder of a name with what the command needs.
            check: called with each folder and with what it gave for one where nobody was killed
                (None the first time); gives what is to be equal.
            wanted: number of kills.
            repeats: choices of how often it is killed in one folder.
            failed: what a run may have ended as beside FINISHED and KILLED.
        """
        expected = check(self.whole(make_place("whole")), None)
        number = 0
        while len(self.moments) < wanted:
            place = make_place(f"killed-{number}")
            for _ in range(self.random.choice(repeats)):
                if len(self.moments) < wanted:
                    self.kill(place)
            code = self.starter.finish(place, self.entry_point, self.arguments)
            assert code == 0, place.log()[-3000:]
            found = check(place, expected)
            for key in expected:
                assert found[key] == expected[key], (key, self.moments)
            assert place.statuses() <= {"FINISHED", "KILLED", *failed}, self.moments
            number += 1
        return expected

    def tell(self, tell):
        """Put the kills into the table."""
        name = self.entry_point.replace("_", "-")
        tell(f"SIGKILL of {name}", len(self.moments), detail="\n".join(self.moments))

    def whole(self, place):
        """Run it once without a kill, learn what moments there are, and return its folder."""
        watch = Watch(place.folder, self.classify)
        code = self.starter.finish(place, self.entry_point, self.arguments)
        watch.end()
        assert code == 0, place.log()[-3000:]
        self.counts = dict(watch.counts)
        assert watch.first is not None and self.counts.keys() >= {"save", "upload", "write"}
        self.until_first = watch.first - watch.began
        return place

    def _next_kind(self):
        if not self.kinds:
            self.kinds = self.random.sample(["start", "write", "save", "upload"], 4)
        return self.kinds.pop()

    def kill(self, place):
        """Start it and kill it once, at a random moment; what is left of it is then on its own."""
        kind, whom = self._next_kind(), self.random.choice(self.whom)
        while True:
            if kind == "start":
                from_nothing = self.random.random() < 0.5
                process = self.starter.start(
                    place, self.entry_point, self.arguments, from_nothing=from_nothing
                )
                # From nothing, most of it is spent on imports.
                seconds = self.random.uniform(0, 8.0 if from_nothing else self.until_first)
                time.sleep(seconds)
                moment = f"start, after {seconds:.2f} s"
                self._strike(process.pid, whom)
            else:
                number = self.random.randint(1, self.counts[kind])
                struck = threading.Event()
                ready = threading.Event()
                found = []

                def act(found=found, ready=ready, whom=whom, struck=struck):
                    ready.wait()
                    self._strike(found[0].pid, whom)
                    struck.set()

                watch = Watch(place.folder, self.classify, (kind, number), act)
                found.append(self.starter.start(place, self.entry_point, self.arguments))
                ready.set()
                process = found[0]
            code = process.wait()
            if kind != "start":
                watch.end()
                moment = watch.moment
            if moment is not None and (code == KILLED or whom == "worker"):
                self.moments.append(f"{kind}: {moment}; {whom}, exit code {code}")
                return kind
            # It was through before: an earlier moment of another kind, if any.
            if code == 0:
                return None
            assert code == KILLED, f"exit code {code}: {place.log()[-3000:]}"

    def _strike(self, pid, whom):
        try:
            for process in victims(pid, whom):
                process.kill()
        except psutil.NoSuchProcess:
            pass  # it has ended by itself
