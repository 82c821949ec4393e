"""Trains in several processes, which torchrun's own agent starts as forks; see `tests.forking`."""

import hashlib
import json
import math
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import pixelis.cli.sft as sft_command
import pixelis.runs.train  # what each process would spend seconds on # noqa: F401
import pixelis.training.sft as sft_module
import pixelis.training.trainer as trainer_module
from pixelis.cli.arguments import run_cli
from pixelis.errors import DataError, UserError
from pixelis.evaluation.validation import in_this_process
from pixelis.training.checkpoint import choose_start
from pixelis.training.distributed import OtherProcessFailed, Stopped, join
from pixelis.training.sft import run_training
from pixelis.training.trainer import CurriculumTrainer
from tests.training.forked_runs import LineRecorder, identity_of, log_lines, settings_of


class WatchedTrainer(CurriculumTrainer):
    """Notes what reaches the model, where it begins, and whether dealt strata are the same."""

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.seen, self.same = {}, []
        self.begun = digest(self.weights.tensors())

    def training_step(self, model, inputs, *arguments, **words):
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        step = self.seen.setdefault(self.state.global_step + 1, [])
        step += [digest({"ids": ids[mask == 1]}) for ids, mask in rows]
        if self.hurt and self.hurt[0] == self.state.global_step + 1:
            self.hurt[1]()
        return super().training_step(model, inputs, *arguments, **words)

    def evaluate(self, *arguments, **words):
        if not self.same:
            with self.accelerator.autocast():  # as `evaluate` does
                dealt = self.validation(self.model)
            self.validation.shard = in_this_process
            with self.accelerator.autocast():
                self.same.append(dealt == self.validation(self.model))
            self.validation.shard = self.processes.shard
        return super().evaluate(*arguments, **words)


def digest(tensors):
    parts = b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))
    return hashlib.sha256(parts).hexdigest()[:16]


def user_error():
    raise DataError("the planted example is broken")


def bug():
    raise ZeroDivisionError("planted")


def infinite_loss():
    """Of the micro-batch in hand, in this process alone; every gradient is finite."""
    computed = trainer_module.compute_token_loss

    def once(*arguments, **words):
        trainer_module.compute_token_loss = computed
        return computed(*arguments, **words) + math.inf

    trainer_module.compute_token_loss = once


HURTS = {
    "infinite": infinite_loss,
    "user": user_error,
    "bug": bug,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGHUP": lambda: os.kill(os.getpid(), signal.SIGHUP),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def train(request, rank):
    """One run of `run_training` where `choose_start` says, as `pixelis.cli` goes about it."""
    torch.set_num_threads(1)
    trainers = []

    class Trainer(WatchedTrainer):
        def __init__(self, *arguments, **words):
            super().__init__(*arguments, **words)
            hurt = request["hurt"]  # [rank, step, kind]
            self.hurt = (hurt[1], HURTS[hurt[2]]) if hurt and hurt[0] == rank else None
            trainers.append(self)

    sft_module.CurriculumTrainer = Trainer
    place = Path(request["training"]["output_dir"])
    mark = f".{rank}" if rank else ""  # what another than the main process would leave

    if rank == 0:
        log_lines(place.with_name(f"{place.name}.txt"))

    def begin():
        start = choose_start(request["resume"], place, identity, processes.world_size)
        return str(start.resume_from or "")

    recorder = LineRecorder(place.with_name(f"{place.name}{mark}.jsonl"), lambda *_: None)
    identity = identity_of(request)
    processes = join()
    try:
        with processes.fail_together():
            start = processes.run_on_main(begin)
            settings = settings_of(request, Path(start) if start else None, identity)
            result = run_training(settings, recorder, processes=processes)
    except OtherProcessFailed as failed:
        print(f"[{rank} was told: {failed}]", flush=True)
        return 1
    except UserError as error:
        print(f"error: {error}", flush=True)
        return 2
    except Stopped as stopped:
        print(f"[{rank} stopped: {stopped}]", flush=True)
        processes.run_on_main(lambda: None)
        return 130
    (trainer,) = trainers
    decided = {
        "events": [event.to_dict() for event in result.events],
        "evaluations": result.evaluations,
        "losses": result.losses,
        "best": result.best,
        "seen": trainer.seen,
        "same": trainer.same,
        "begun": trainer.begun,
        "ended": digest(trainer.weights.tensors()),
        "sharded": trainer.weights.is_sharded,
        "kind": trainer.accelerator.distributed_type.value,
    }
    place.with_name(f"{place.name}.{rank}.json").write_text(json.dumps(decided))
    processes.close()
    return 0


def run_command(request, rank):
    """One sft of the command line, in which this process may come to harm in a step."""
    os.chdir(request["folder"])

    class Trainer(CurriculumTrainer):
        def training_step(self, *arguments, **words):
            if request["hurt"][:2] == [rank, self.state.global_step + 1]:
                HURTS[request["hurt"][2]]()
            return super().training_step(*arguments, **words)

    sft_module.CurriculumTrainer = Trainer
    return run_cli(sft_command.main, request["argv"])


def work(request):
    """What each process does; leaves its exit code in a file, since launchers do not tell them."""
    # A fork has the launcher's own handlers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rank, code = int(os.environ["RANK"]), 1
    if request["processes"] == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            del os.environ[name]
    os.environ |= request["environment"]
    out = os.open(request["printed"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1), os.dup2(out, 2)
    # A line is one write, also under PYTHONUNBUFFERED: what two processes say stays apart.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)
    try:
        code = (run_command if "argv" in request else train)(request, rank)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        Path(f"{request['printed']}.{rank}").write_text(str(code))
        if code:
            os._exit(code)


def run(request):
    """Launch as torchrun and accelerate do, with the same agent; write the exit codes to a file.

    The code of a process that a signal ended is None.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=request["processes"],
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="test",
        logs_specs=DefaultLogsSpecs(log_dir=request["logs"]),
        max_restarts=0,
        start_method="fork",
    )
    try:
        elastic_launch(config, work)(request)
    except ChildFailedError:
        pass  # the files of codes say it
    files = [Path(f"{request['printed']}.{rank}") for rank in range(request["processes"])]
    codes = [int(file.read_text()) if file.is_file() else None for file in files]
    for file in files:
        file.unlink(missing_ok=True)
    Path(request["codes"]).write_text(json.dumps(codes))
    return 0
