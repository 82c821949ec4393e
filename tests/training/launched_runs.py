"""Trains in several forks at once, as a launcher starts processes: one fails, all are ended.

Reads a request a line (JSON, see `train`) and answers with the exit codes of its children.
"""

import gc
import hashlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from forked_runs import LineRecorder

import pixelis.training.sft as sft_module
from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import DataError, UserError
from pixelis.evaluation.validation import in_this_process
from pixelis.training.processes import OtherProcessFailed, join
from pixelis.training.resume import choose_start
from pixelis.training.sft import Stopped, run_training
from pixelis.training.trainer import CurriculumTrainer

GRACE_SECONDS = 20


class WatchedTrainer(CurriculumTrainer):
    """Notes what reaches the model, where it begins, and whether dealt strata are the same."""

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.seen, self.same = {}, []
        self.begun = digest(self._adapter_tensors())

    def training_step(self, model, inputs, *arguments, **words):
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        step = self.seen.setdefault(self.state.global_step + 1, [])
        step += [digest({"ids": ids[mask == 1]}) for ids, mask in rows]
        if self.curriculum.hurt and self.curriculum.hurt[0] == self.state.global_step + 1:
            self.curriculum.hurt[1]()
        return super().training_step(model, inputs, *arguments, **words)

    def evaluate(self, *arguments, **words):
        if not self.same:
            dealt = self.validation(self.model)
            self.validation.deal = in_this_process
            self.same.append(dealt == self.validation(self.model))
            self.validation.deal = self.processes.deal
        return super().evaluate(*arguments, **words)


def digest(tensors):
    parts = b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))
    return hashlib.sha256(parts).hexdigest()[:16]


def user_error():
    raise DataError("the planted example is broken")


def bug():
    raise ZeroDivisionError("planted")


HURTS = {
    "user": user_error,
    "bug": bug,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def train(request, rank):
    """One run of `run_training` where `choose_start` says, as `pixelis.cli` goes about it."""
    torch.set_num_threads(1)
    trainers = []

    class Trainer(WatchedTrainer):
        def __init__(self, *arguments, curriculum, **words):
            hurt = request["hurt"]  # [rank, step, kind]
            mine = hurt and hurt[0] == rank
            curriculum.hurt = (hurt[1], HURTS[hurt[2]]) if mine else None
            super().__init__(*arguments, curriculum=curriculum, **words)
            trainers.append(self)

    sft_module.CurriculumTrainer = Trainer
    place = Path(request["training"]["output_dir"])
    mark = f".{rank}" if rank else ""  # what another than the main process would leave

    def say(line):
        with place.with_name(f"{place.name}{mark}.txt").open("a") as file:
            file.write(line + "\n")

    def begin():
        start = choose_start(request["resume"], place, identity, say, processes.world_size)
        return str(start.resume_from or "")

    recorder = LineRecorder(place.with_name(f"{place.name}{mark}.jsonl"), lambda *_: None)
    training = TrainingConfig(**request["training"])
    identity = {"curriculum": request["curriculum"], "max_steps": training.max_steps}
    processes = join()
    try:
        with processes.together():
            start = processes.on_main(begin)
            result = run_training(
                training=training,
                model_config=ModelConfig(**request["model"]),
                curriculum=CurriculumConfig.from_dict(request["curriculum"]),
                data_dir=Path(request["data_dir"]),
                recorder=recorder,
                run_state={"identity": identity, "run_id": None},
                resume_from=Path(start) if start else None,
                say=say,
                processes=processes,
            )
    except OtherProcessFailed as failed:
        print(f"[{rank} was told: {failed}]", flush=True)
        return 1
    except UserError as error:
        print(f"error: {error}", flush=True)
        return 2
    except Stopped as stopped:
        print(f"[{rank} stopped: {stopped}]", flush=True)
        processes.on_main(lambda: None)
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
        "ended": digest(trainer._adapter_tensors()),
        "sharded": trainer.is_sharded,
    }
    place.with_name(f"{place.name}.{rank}.json").write_text(json.dumps(decided))
    processes.leave()
    return 0


def child(request, rank, port):
    """Never returns."""
    code = 1
    try:
        world_size = request["processes"]
        os.environ |= request["environment"]
        if world_size > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
            }
        out = os.open(request["printed"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1), os.dup2(out, 2)
        code = train(request, rank)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def launch(request):
    """Fork, and do what a launcher does: end everyone as soon as one fails."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    left = {}
    for rank in range(request["processes"]):
        left[os.fork() or child(request, rank, store.port)] = rank
    codes, deadline = {}, None
    while left:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[left.pop(pid)] = os.waitstatus_to_exitcode(status)
            if any(codes.values()) and deadline is None:
                deadline = time.monotonic() + GRACE_SECONDS
                for other in left:
                    os.kill(other, signal.SIGTERM)
        elif deadline is not None and time.monotonic() > deadline:
            for other in left:
                os.kill(other, signal.SIGKILL)
            deadline = None
        time.sleep(0.01)
    return [codes[rank] for rank in sorted(codes)]


def main():
    """Answer requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gc.freeze()
    for line in sys.stdin:
        answers.write(json.dumps(launch(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
