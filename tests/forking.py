"""Forks of one process that has imported everything: quick to start, and each can be killed.

`ForkServer("tests.cli.forked_sft")` starts `python -m tests.forking tests.cli.forked_sft`,
which imports that module once and then calls its `run(arguments)` in a fork for each request. The
number that `run` returns is the fork's exit code; a `run` that raises SystemExit ends as a whole
process does, with what multiprocessing and atexit do at the end.
"""

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent
TIMEOUT = 900  # seconds on a busy machine, after which a fork hangs


class ForkServer:
    """Start forks, one at a time."""

    def __init__(self, module, environment=None):
        """Import `module` in a process of its own.

        Args:
            module: dotted name of a module with a function `run`.
            environment: of that process; None: this one's without MLflow's variables.
        """
        if environment is None:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        defaults = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forking", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **defaults, "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def start(self, arguments, *, folder=None, environment=None, log=None):
        """Fork once and return the fork, which leads a process group of its own.

        Args:
            arguments: JSON that `run` gets.
            folder: its working folder.
            environment: variables to set.
            log: file that its output is appended to.
        """
        request = {
            "arguments": arguments,
            "folder": None if folder is None else str(folder),
            "environment": environment or {},
            "log": None if log is None else str(log),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Forked(self._process.stdout, int(self._process.stdout.readline()))

    def run(self, arguments, **settings):
        """Fork once and return the exit code; -9 where the fork was killed."""
        return self.start(arguments, **settings).wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


class Forked:
    """A fork at work."""

    def __init__(self, answers, pid):
        self._answers, self.pid = answers, pid

    def wait(self, timeout=TIMEOUT):
        """Return the exit code; a fork that takes longer is killed with all that it started."""
        if not select.select([self._answers], [], [], timeout)[0]:
            os.killpg(self.pid, signal.SIGKILL)
            self._answers.readline()
            raise AssertionError(f"process {self.pid} hangs")
        return int(self._answers.readline())


def _work(run, request):
    os.setsid()
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if request["folder"] is not None:
        os.chdir(request["folder"])
    os.environ.update(request["environment"])
    if request["log"] is not None:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
    code = 1
    try:
        code = run(request["arguments"])
    except SystemExit:
        code = None
        raise
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if code is not None:
            os._exit(code)


def serve(module):
    """Answer each request with the fork's process id, then with its exit code."""
    run = importlib.import_module(module).run
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a fork prints must not get between the answers
    gc.freeze()  # a fork would spend most of its start-up on collecting what is imported
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _work(run, json.loads(line))
        print(child, file=answers, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
