"""Runs entry points in forks of one process that has imported everything: each may be killed.

Reads a request a line (JSON, see `run`) and answers with the child's number, then with its exit
code. A child leads a process group of its own, with all that it starts.
"""

import gc
import importlib
import json
import os
import signal
import sys
import traceback

import torch

import pixelis.cli.evaluate
import pixelis.runs.evaluate
import pixelis.runs.prepare
import pixelis.runs.tune
from pixelis.cli.arguments import run_cli

assert pixelis.runs.tune  # imported here, so that no child has to


def run(request):
    """One call of an entry point in the folder and environment of the request."""
    os.setsid()
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    module = importlib.import_module(f"pixelis.cli.{request['entry_point']}")
    return run_cli(module.main, request["arguments"])


def main():
    """Answer requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a child prints must not get between the answers
    gc.freeze()  # a child would spend most of its start-up on collecting what is imported
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(json.loads(line))
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        answers.write(f"{child}\n")
        answers.flush()
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
