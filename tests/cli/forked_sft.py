"""Runs `sft` in forks of one process that has imported everything: a run can be killed for real.

Reads a request a line (JSON, see `run`) and answers with the exit code of its child.
"""

import gc
import json
import os
import signal
import sys
import traceback

import torch

import pixelis.evaluation.validation as validation_module
import pixelis.training.trainer as trainer_module
from pixelis.cli.arguments import run_cli
from pixelis.cli.sft import main as sft
from pixelis.runs.train import run_sft
from pixelis.tracking.send import Sender
from pixelis.training.callback import CurriculumCallback
from pixelis.training.trainer import CurriculumTrainer

assert run_sft  # imported here, so that no child has to


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, due):
    """Die instead of a call for which `due(*arguments)` holds."""
    call = getattr(owner, name)

    def dying(*arguments, **words):
        if due(*arguments):
            die()
        return call(*arguments, **words)

    setattr(owner, name, dying)


def after(owner, name, due):
    """Die when a call for which `due(*arguments)` holds has done its work."""
    call = getattr(owner, name)

    def dying(*arguments, **words):
        result = call(*arguments, **words)
        if due(*arguments):
            die()
        return result

    setattr(owner, name, dying)


def plant(kill_point, step):
    """Make this process die at a kill_point of an optimiser step."""
    evaluated, tallied = [], []
    if kill_point == "step":  # the gradient is there, the weights are the old ones
        after(CurriculumTrainer, "training_step", lambda t, *_: t.state.global_step == step - 1)
    elif kill_point == "evaluation":  # in its second example
        before(CurriculumTrainer, "evaluate", lambda t, *_: evaluated.append(t.state.global_step))
        before(
            validation_module,
            "_tally",
            lambda *_: evaluated[-1] == step and tallied.append(1) is None and len(tallied) == 2,
        )
    elif kill_point == "attempt":  # decided, and neither applied nor recorded
        before(CurriculumCallback, "_apply", lambda c, event, *_: event.step == step)
    elif kill_point == "applied":  # adapter and moments are put back, and it is not recorded
        after(CurriculumCallback, "_apply", lambda c, event, *_: event.step == step)
    elif kill_point == "torn":  # a checkpoint without its digests
        before(trainer_module, "seal", lambda folder: folder.name == f"checkpoint-{step}")
    elif kill_point == "saved":  # a whole checkpoint, and the older ones still there
        after(trainer_module, "seal", lambda folder: folder.name == f"checkpoint-{step}")
    elif kill_point in ("undelivered", "delivered"):  # MLflow has it, or not; it waits still
        (before if kill_point == "undelivered" else after)(
            Sender,
            "send",
            lambda _, group: group[0].kind == "metric" and group[-1].step >= step,
        )
    else:
        raise AssertionError(kill_point)


def run(request):
    """One `sft` in the folder and environment of the request."""
    torch.set_num_threads(1)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    if request["fault"]:
        plant(*request["fault"])
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return run_cli(sft, request["arguments"])


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
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
