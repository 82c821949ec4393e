"""Runs `sft` in a fork that dies where it is told to; see `tests.forking`."""

import os
import signal

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
    """One `sft`, to its end or to the fault."""
    if request["fault"]:
        plant(*request["fault"])
    return run_cli(sft, request["argv"])
